-- SPDX-License-Identifier: GPL-3.0-or-later
-- An event loop for Lua: nunc-stans in the thread that runs Lua. README.md shows it.
--
-- The same for LuaJIT (nunc_stans/ffi.lua) and plain Lua (nunc_stans/core.c): both give the library's functions one by
-- one, on raw pointers. This file sees to it that nobody names what is gone. Its pools have no threads: what runs, runs
-- in the thread that is inside run() or turn().
local core = jit and require("nunc_stans.ffi") or require("nunc_stans.core")

local ns = {READ = core.READ, WRITE = core.WRITE, version = core.version}
local unpack = table.unpack or unpack
local SUCCESS, SHUTDOWN, TIMEOUT = 0, 1, 7

-- What is raised: `name` is the result's, as "NS_SHUTDOWN"; `call` the function here; `message` what the library
-- logged.
local Error = {__tostring = function(err) return err.call .. ": " .. err.name .. ": " .. err.message end}
local logged -- the last line; of a call that was refused, it says why

local function refuse(call, name, message)
  logged = nil
  error(setmetatable({call = call, name = name, message = message}, Error), 0)
end

local function check(result, call)
  if result ~= SUCCESS then refuse(call, core.result_name(result), logged or core.result_message(result)) end
end

-- Gets what the library logs, with syslog's priorities: put your own here. Errors are raised besides.
function ns.log(priority, text)
  if priority <= 4 and priority ~= 3 then io.stderr:write("nunc-stans: ", text, "\n") end
end

local function on_log(priority, line)
  logged = core.text(line):gsub("\n$", "")
  pcall(ns.log, priority, logged)
end

local function number(call, value, whole)
  if type(value) ~= "number" or value ~= value or whole and math.floor(value) ~= value then
    refuse(call, "NS_INVALID_REQUEST", "not a number that it takes: " .. tostring(value))
  end
  return value
end

-- Zero is no time-out for the library: what is over already is a microsecond.
local function timeout(call, seconds) return seconds and math.max(number(call, seconds), 1e-6) or 0 end

-- Everything that C calls, by the number that C has of it; its pool keeps it alive.
local all, last = setmetatable({}, {__mode = "v"}), 0
local silent = false -- while a pool goes that was collected, or all of Lua: nothing of the user's runs any more

local function remember(pool, entry)
  last = last + 1
  all[last], pool._live[last] = entry, entry
  return last
end

local function forget(pool, id) all[id], pool._live[id] = nil, nil end

local function report(pool, err, trace)
  -- The pool or group ends: let it pass.
  if getmetatable(err) == Error and (err.name == "NS_SHUTDOWN" or err.name == "NS_DELETING") then return end
  if not pool._on_error or not pcall(pool._on_error, err, trace) then
    pcall(io.stderr.write, io.stderr, "nunc-stans: error in a callback: ", trace, "\n")
  end
end

local function with_trace(err) return {err, debug.traceback(tostring(err), 2)} end

-- Call what is not ours. True: it returned; else its error was reported.
local function contain(pool, f, ...)
  local ok, thrown = xpcall(f, with_trace, ...)
  if not ok and type(thrown) ~= "table" then thrown = {thrown, tostring(thrown)} end -- out of memory or stack
  if not ok then report(pool, thrown[1], thrown[2]) end
  return ok
end

-- Jobs. `_raw` names the job in C until it is finished with; in its own callback, `_inside` does.
local Job = {}
Job.__index = Job

function Job:over() return not self._raw or self._group ~= nil and self._group._cancelled == true end

local function arm(job, call, f, ...)
  local raw = job._inside or not job:over() and job._raw
  if not raw then refuse(call, "NS_DELETING", "the job is finished with") end
  check(f(raw, ...), call)
  job._rearmed = true
end

-- Arm it again: in its callback, when that returns.
function Job:rearm() arm(self, "rearm", core.job_rearm) end

-- The same, but it begins to watch only after a time.
function Job:rearm_after(seconds) arm(self, "rearm_after", core.job_rearm_after, number("rearm_after", seconds)) end

-- The same, for ns.READ, ns.WRITE or their sum; for a timer, 0 and its new time.
function Job:rearm_for(directions, seconds)
  arm(self, "rearm_for", core.job_rearm_for, number("rearm_for", directions, true), timeout("rearm_for", seconds))
end

-- Finish with it, whatever its state. False: it was over before.
function Job:cancel()
  if self:over() then return false end
  local raw = self._raw
  self._raw = nil
  core.job_cancel(raw)
  return true
end

local function run(id, raw)
  local job = not silent and all[id]
  if not job then return core.job_done(raw) end
  job.fired, job.timed_out = core.fired(raw)
  job._inside, job._rearmed = raw, false
  local ok = contain(job.pool, job._callback, job)
  job._inside = nil
  if not job:over() and not (ok and (job._stays or job._rearmed)) then
    job._raw = nil
    core.job_done(raw)
  end
end

local function gone(id)
  local job = not silent and all[id]
  if job then
    forget(job.pool, id)
    job._raw = nil
    if job._on_gone then contain(job.pool, job._on_gone) end
  end
end

local function posted(id, raw)
  core.job_done(raw)
  local entry = not silent and all[id]
  if entry then
    forget(entry.pool, id)
    contain(entry.pool, entry.f, unpack(entry, 1, entry.n))
  end
end

-- What pools and groups have in common: jobs are added to them. `pool` is the pool, also a pool's own.
local Adder = {}

local function open(adder, call)
  if not adder.pool._raw or not adder._raw then refuse(call, "NS_SHUTDOWN", "the pool or group has ended") end
  return adder.pool._raw, adder._raw
end

local function add(adder, call, callback, how, flags, f, ...)
  local pool, group = adder.pool, adder ~= adder.pool and adder or nil
  local tp = open(adder, call)
  if group and group._cancelled then refuse(call, "NS_DELETING", "the group is cancelled") end
  if not callback then refuse(call, "NS_INVALID_REQUEST", "no callback") end
  how = how or {}
  local job = setmetatable({pool = pool, _group = group, _callback = callback}, Job)
  job._stays = how.persist or how.keep
  local id = remember(pool, job)
  local result, raw = f(tp, flags + core.UNARMED + (how.persist and core.PERSIST or 0), id, ...)
  if result ~= SUCCESS then forget(pool, id) end
  check(result, call)
  core.job_set_done(raw)
  result = group and core.job_set_group(raw, group._raw) or SUCCESS
  result = result ~= SUCCESS and result or core.job_rearm(raw)
  if result ~= SUCCESS then core.job_done(raw) end
  check(result, call)
  job._raw = raw
  return job
end

-- Call f(...) once, in a later turn.
function Adder:post(f, ...)
  local tp, raw = open(self, "post")
  if not f then refuse("post", "NS_INVALID_REQUEST", "no function") end
  local id = remember(self.pool, {pool = self.pool, owner = self, f = f, n = select("#", ...), ...})
  local result = (self == self.pool and core.post or core.post_group)(raw, id)
  if result ~= SUCCESS then forget(self.pool, id) end
  check(result, "post")
end

-- In a later turn, and again when it is rearmed. Options: keep.
function Adder:job(callback, how) return add(self, "job", callback, how, 0, core.add_job) end

-- When a time has passed. Options: keep.
function Adder:after(seconds, callback, how)
  return add(self, "after", callback, how, 0, core.add_timeout_job, number("after", seconds))
end

-- Whenever a time has passed, until it is cancelled. Options: cadence (without drift).
function Adder:every(seconds, callback, how)
  local flags = how and how.cadence and core.CADENCE or 0
  return add(self, "every", callback, {persist = true}, flags, core.add_timeout_job, number("every", seconds))
end

-- When a signal has arrived: "TERM", or its number. Options: persist, keep.
function Adder:on_signal(signal, callback, how)
  signal = number("on_signal", core.signals[signal] or signal, true)
  return add(self, "on_signal", callback, how, 0, core.add_signal_job, signal)
end

-- When a descriptor, or what has a getfd() or fileno(), is ready, or the time is up. Keep it open until the job is over.
-- Options: timeout, persist, keep.
function Adder:on_io(fd, directions, callback, how)
  if type(fd) ~= "number" then fd = fd.getfd and fd:getfd() or fd:fileno() end
  number("on_io", fd, true)
  local flags = number("on_io", directions, true) + core.PRESERVE_FD
  return add(self, "on_io", callback, how, flags, core.add_fd_job, fd, timeout("on_io", how and how.timeout))
end

function Adder:on_readable(fd, callback, how) return self:on_io(fd, ns.READ, callback, how) end
function Adder:on_writable(fd, callback, how) return self:on_io(fd, ns.WRITE, callback, how) end

-- Tasks: coroutines that wait by the functions below. If what a task waits for is over without having come, as when its
-- pool is closed, the task ends where it is. Lua 5.4 then closes its variables.
local function step(pool, co, ...)
  local ok, err = coroutine.resume(co, ...)
  if not ok then report(pool, err, debug.traceback(co, tostring(err))) end
end

function Adder:task(f, ...) self:post(step, self.pool, coroutine.create(f), ...) end

local function await(adder, name, call, what, how)
  local co, main = coroutine.running()
  if main or not co then refuse(name, "NS_INVALID_STATE", "not in a task") end
  local resumed
  local job = adder[call](adder, what, function(job)
    resumed = true
    step(adder.pool, co, not job.timed_out)
  end, how)
  job._on_gone = function()
    if not resumed and coroutine.close and coroutine.status(co) == "suspended" then assert(coroutine.close(co)) end
  end
  return coroutine.yield()
end

-- Until a descriptor is ready. False: the time is up.
function Adder:readable(fd, seconds) return await(self, "readable", "on_readable", fd, {timeout = seconds}) end
function Adder:writable(fd, seconds) return await(self, "writable", "on_writable", fd, {timeout = seconds}) end
function Adder:sleep(seconds) await(self, "sleep", "after", seconds) end
function Adder:signal(signal) await(self, "signal", "on_signal", signal) end

local function class()
  local methods = {}
  for name, method in pairs(Adder) do methods[name] = method end
  methods.__index = methods
  return methods
end

-- Groups: jobs that are cancelled, held back and waited for together.
local Group = class()

local function group_gone(id)
  local group = not silent and all[id]
  if group then
    forget(group.pool, id)
    group._raw = nil
  end
end

-- suspend() and resume() are counted. With limit(n), post() raises NS_OVERLOADED when n wait; 0: no limit.
for name, call in pairs {suspend = core.group_suspend, resume = core.group_resume, limit = core.group_set_limit} do
  Group[name] = function(group, value)
    local _, raw = open(group, name)
    check(call(raw, number(name, value or 0, true)), name)
  end
end

-- Finish with all its jobs, and let none in any more.
function Group:cancel()
  local _, raw = open(self, "cancel")
  self._cancelled = true
  core.group_cancel(raw)
  for id, entry in pairs(self.pool._live) do
    if entry.owner == self then forget(self.pool, id) end
  end
end

-- Give it back. It goes when its jobs are over.
function Group:release()
  if self._held and self._raw then
    self._held = false
    core.group_release(self._raw)
  end
end
Group.__close = Group.release

function Group:length() return core.group_get_length(select(2, open(self, "length"))) end

-- Turn the pool until none of its jobs is armed, queued or running. False: the time is up.
function Group:wait(seconds)
  return self.pool:_until("wait", seconds, function()
    local result = self._raw and core.group_wait(self._raw) or SUCCESS
    return result == SUCCESS or result == SHUTDOWN
  end)
end

local Pool = class()

-- Options: name, framework, on_error(err, traceback).
function ns.pool(how)
  how = how or {}
  local raw = core.new(how.framework)
  if not raw then refuse("pool", "NS_INVALID_REQUEST", logged or "the pool can't be made") end
  local pool = setmetatable({_raw = raw, _live = {}, _on_error = how.on_error}, Pool)
  pool.pool = pool
  pool._guard = core.guard(function() pool:_destroy(true) end)
  return pool
end

function Pool:group(width)
  local tp = open(self, "group")
  local group = setmetatable({pool = self, _held = true}, Group)
  local id = remember(self, group)
  local result, raw = core.group_new(tp, number("group", width or 1, true), id)
  if result ~= SUCCESS then forget(self, id) end
  check(result, "group")
  group._raw = raw
  return group
end

-- One turn: wait for something to do, at most so long, and do it. False: there was nothing, or the pool has stopped;
-- the second result is then "NS_TIMEOUT" or "NS_SHUTDOWN".
function Pool:turn(seconds)
  local tp, was, limit = open(self, "turn"), self._turning, seconds and number("turn", seconds) or -1
  self._turning = true
  local ok, result = pcall(core.turn, tp, limit)
  self._turning = was
  if not ok then error(result, 0) end -- Ctrl-C
  if result == TIMEOUT or result == SHUTDOWN then return false, core.result_name(result) end
  check(result, "turn")
  return true
end

-- A turn ends after a quarter of a second, so that Ctrl-C ends the wait, too.
function Pool:_until(call, seconds, condition)
  local up = false
  local clock = seconds and not self:is_shutdown() and self:after(seconds, function() up = true end)
  repeat
    local came = condition()
    local _, why
    if not came and not up then _, why = self:turn(0.25) end
  until came or up or why == "NS_SHUTDOWN"
  if clock then clock:cancel() end
  return not up or condition()
end

-- Turn until it has been shut down, and what was posted before has run. False: the time is up.
function Pool:run(seconds) return self:_until("run", seconds, function() return not self._raw end) end

function Pool:shutdown() core.shutdown((open(self, "shutdown"))) end

function Pool:is_shutdown() return not self._raw or core.is_shutdown(self._raw) end

-- A descriptor for another event loop: when it is readable, turn(0).
function Pool:wait_fd() return core.wait_fd((open(self, "wait_fd"))) end

function Pool:framework() return core.framework((open(self, "framework"))) end

-- Shut it down, run what was posted, cancel what is left, and free it. Not in its own callbacks.
function Pool:close()
  if self._raw then
    self:shutdown()
    self:run()
    self:_destroy(false)
  end
end
Pool.__close = Pool.close

function Pool:_destroy(silently)
  local tp = self._raw
  if not tp or self._turning then return end -- Lua ends in a callback of it: it goes with the process
  self._raw = nil
  for _, entry in pairs(self._live) do
    local kind = getmetatable(entry)
    if kind == Job then entry:cancel() elseif kind == Group then entry:release() end
  end
  silent = silently
  core.destroy(tp)
  silent = false
  for id in pairs(self._live) do forget(self, id) end
end
-- A finalizer calls it. There a loop that LuaJIT has compiled may leave its trace and enter it again without end.
if jit then jit.off(Pool._destroy) end

core.handlers(run, gone, posted, group_gone, on_log)
return ns
