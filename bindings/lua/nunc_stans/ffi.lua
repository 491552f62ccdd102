-- SPDX-License-Identifier: GPL-3.0-or-later
-- The library's functions for nunc_stans.lua, one by one and on raw pointers, for LuaJIT. The same as core.c.
local ffi, bit = require("ffi"), require("bit")
-- What calls the library can't be compiled, because the library calls Lua: this file and what it makes.
jit.off(true, true)

-- nunc-stans-ffi.h: beside this file, or where it is installed.
local function declarations()
  local places = {debug.getinfo(1, "S").source:match("^@(.*/)") or "./", "/usr/local/include/", "/usr/include/"}
  local from = io.popen("pkg-config --variable=includedir nunc-stans 2>/dev/null")
  places[4] = (from and from:read("*l") or "") .. "/"
  if from then from:close() end
  for _, place in ipairs(places) do
    local file = io.open(place .. "nunc-stans-ffi.h")
    if file then
      local text = file:read("*a")
      file:close()
      return text
    end
  end
  error("nunc-stans-ffi.h is not found: install the library's headers, or copy it beside nunc_stans/ffi.lua")
end

local function declared(what) return (pcall(ffi.typeof, what)) end
if not declared("struct ns_thrpool_options") then
  local text = declarations()
  ffi.cdef(declared("struct timeval") and text:gsub("struct timeval {[^\n]*\n", "") or text)
end
for name, declaration in pairs {
  vsnprintf = "int vsnprintf(char *, size_t, const char *, void *);", -- a va_list: nunc-stans-ffi.h
  sigemptyset = "int sigemptyset(void *);", sigaddset = "int sigaddset(void *, int);",
  sigprocmask = "int sigprocmask(int, const void *, void *);",
} do
  if not pcall(function() return ffi.C[name] end) then ffi.cdef(declaration) end
end
local C = ffi.load("libnunc-stans.so.0")
local M = {version = ffi.string(C.ns_version()), text = ffi.string}
for _, name in ipairs {"READ", "WRITE", "PERSIST", "UNARMED", "PRESERVE_FD", "CADENCE"} do
  M[name] = tonumber(C["NS_JOB_" .. name])
end
local mips = jit.arch:match("^mips") ~= nil
M.signals = {HUP = 1, INT = 2, QUIT = 3, PIPE = 13, ALRM = 14, TERM = 15, USR1 = mips and 16 or 10,
  USR2 = mips and 17 or 12, CHLD = mips and 18 or 17, CONT = mips and 25 or 18, WINCH = mips and 20 or 28}

local function data(id) return ffi.cast("void *", ffi.cast("uintptr_t", id)) end
local function id(pointer) return tonumber(ffi.cast("uintptr_t", pointer)) end

-- A time for C: rounded up, not negative, at most a century.
local function tv(seconds)
  local us = math.ceil(math.min(math.max(seconds, 0), 3.2e9) * 1e6)
  return ffi.new("struct timeval", math.floor(us / 1e6), us % 1e6)
end
local zero = tv(0)
local int_set = ffi.new("char[128]") -- as large as any sigset_t
ffi.C.sigemptyset(int_set)
ffi.C.sigaddset(int_set, M.signals.INT)

-- Their results are numbers.
for _, name in ipairs {"job_rearm", "job_done", "job_cancel", "job_set_group", "group_cancel", "group_set_limit",
  "group_get_length"} do
  local f = C["ns_" .. name]
  M[name] = function(...) return tonumber(f(...)) end
end
function M.job_rearm_after(job, seconds) return tonumber(C.ns_job_rearm_after(job, tv(seconds))) end
function M.job_rearm_for(job, directions, seconds) return tonumber(C.ns_job_rearm_for(job, directions, tv(seconds))) end
function M.group_suspend(group) return tonumber(C.ns_group_suspend(group)) end
function M.group_resume(group) return tonumber(C.ns_group_resume(group)) end
function M.group_release(group) C.ns_group_release(group) end
function M.group_wait(group) return tonumber(C.ns_group_wait(group, zero)) end
function M.turn(pool, seconds)
  -- Stand-alone LuaJIT turns Ctrl-C into an error of the next instruction, which must not be a callback's first: the
  -- error would leave the library's functions half-way. So the signal waits for the turn's end, unless a job watches it.
  local blocks, before = not M.watches_int, ffi.new("char[128]")
  if blocks then ffi.C.sigprocmask(mips and 1 or 0, int_set, before) end
  local result = C.ns_thrpool_turn(pool, seconds >= 0 and tv(seconds) or nil)
  if blocks then ffi.C.sigprocmask(mips and 3 or 2, before, nil) end
  return tonumber(result)
end
function M.wait_fd(pool) return C.ns_thrpool_get_wait_fd(pool) end
function M.shutdown(pool) C.ns_thrpool_shutdown(pool) end
function M.is_shutdown(pool) return C.ns_thrpool_is_shutdown(pool) ~= 0 end
function M.destroy(pool) C.ns_thrpool_destroy(pool) end
function M.framework(pool) return ffi.string(C.ns_thrpool_get_framework(pool)) end
function M.result_name(number) return ffi.string(C.ns_result_name(number)) end
function M.result_message(number) return ffi.string(C.ns_result_message(number)) end

-- In its callback: what fired of READ and WRITE, and whether its time is up.
function M.fired(job)
  local fired = tonumber(C.ns_job_get_output_type(job))
  return bit.band(fired, M.READ + M.WRITE), bit.band(fired, C.NS_JOB_TIMER) ~= 0
end

function M.handlers(run, gone, posted, group_gone, log)
  -- No error may leave a callback: C and Rust are below.
  local function callback(type, f)
    return ffi.cast(type, function(...) pcall(f, ...) end)
  end
  local function on_job(handler)
    return callback("ns_job_func_t", function(job) handler(id(C.ns_job_get_data(job)), job) end)
  end
  local on_run, on_gone, on_posted = on_job(run), on_job(gone), on_job(posted)
  local on_group = callback("void (*)(struct ns_group_t *)", function(group) group_gone(id(C.ns_group_get_data(group))) end)
  local line = ffi.new("char[2048]")
  local on_log = callback("void (*)(int, const char *, void *)", function(priority, format, arguments)
    ffi.C.vsnprintf(line, 2048, format, arguments)
    log(priority, line)
  end)

  function M.job_set_done(job) return tonumber(C.ns_job_set_done_cb(job, on_gone)) end
  function M.post(pool, id) return tonumber(C.ns_add_job(pool, 0, on_posted, data(id), nil)) end
  function M.post_group(group, id) return tonumber(C.ns_add_group_job(group, 0, on_posted, data(id), nil)) end
  local function makes(result, made) return tonumber(result), made[0] end
  local function new_job() return ffi.new("struct ns_job_t *[1]") end
  function M.add_job(pool, flags, id, made)
    made = new_job()
    return makes(C.ns_add_job(pool, flags, on_run, data(id), made), made)
  end
  function M.add_timeout_job(pool, flags, id, seconds)
    local made = new_job()
    return makes(C.ns_add_timeout_job(pool, tv(seconds), flags, on_run, data(id), made), made)
  end
  function M.add_signal_job(pool, flags, id, signal)
    M.watches_int = M.watches_int or signal == M.signals.INT
    local made = new_job()
    return makes(C.ns_add_signal_job(pool, signal, flags, on_run, data(id), made), made)
  end
  function M.add_fd_job(pool, flags, id, fd, seconds)
    local made = new_job()
    return makes(C.ns_add_fd_timeout_job(pool, fd, tv(seconds), flags, on_run, data(id), made), made)
  end
  function M.group_new(pool, width, id)
    local made = ffi.new("struct ns_group_t *[1]")
    return makes(C.ns_group_new(pool, width, data(id), on_group, made), made)
  end

  -- A pool without any thread, or nil.
  function M.new(framework)
    local config, options = ffi.new("struct ns_thrpool_config"), ffi.new("struct ns_thrpool_options")
    C.ns_thrpool_config_init(config)
    C.ns_thrpool_options_init(options, ffi.sizeof(options))
    config.max_threads, config.log_fct = 0, on_log
    options.flags, options.framework = C.NS_POOL_CALLER_LOOP, framework
    local pool = C.ns_thrpool_new_with(config, options)
    return pool ~= nil and pool or nil
  end
end

-- What calls a function when it is collected, or Lua ends.
function M.guard(f)
  local guard = newproxy(true)
  getmetatable(guard).__gc = f
  return guard
end

return M
