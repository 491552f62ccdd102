-- SPDX-License-Identifier: GPL-3.0-or-later
-- Pools, jobs, groups and tasks, on real sockets, timers and signals: luajit|lua5.4 test.lua DIRECTORY, which is that of
-- the binding. The last line is "N passed, N failed".
local here = arg[1]
local lua = arg[-1] -- the interpreter, which some tests start again
for i = -2, -9, -1 do lua = arg[i] and arg[i] .. " " .. lua or lua end -- with its options
package.path = here .. "/?.lua;" .. package.path
local ns = require("nunc_stans")
local socket = require("socket")
local pid = io.open("/proc/self/stat"):read("*n")
local full, slow = os.getenv("NS_COUNT") == "full", os.getenv("NS_SLOW")

local passed, failed = 0, 0
local function test(name, f)
  local ok, err = xpcall(f, debug.traceback)
  collectgarbage()
  collectgarbage()
  passed, failed = passed + (ok and 1 or 0), failed + (ok and 0 or 1)
  print((ok and "ok: " or "FAILED: ") .. name .. (ok and "" or "\n" .. tostring(err)))
  io.stdout:flush()
end

local function eq(a, b)
  if a ~= b then error(tostring(a) .. " is not " .. tostring(b), 2) end
end

-- What f(...) raises has this name.
local function refused(name, f, ...)
  local ok, err = pcall(f, ...)
  if ok or type(err) ~= "table" or err.name ~= name then error("not " .. name .. ": " .. tostring(err), 2) end
  return err
end

-- Turn the pool until the condition holds.
local function eventually(pool, condition)
  local begin = os.time()
  while not condition() do
    pool:turn(0.05)
    if os.time() - begin > 30 then error("it never came", 2) end
  end
end

-- Two ends of a TCP connection.
local function pair()
  local listener = assert(socket.bind("127.0.0.1", 0))
  local a = assert(socket.connect("127.0.0.1", (select(2, listener:getsockname()))))
  local b = assert(listener:accept())
  listener:close()
  a:settimeout(0)
  b:settimeout(0)
  return a, b
end

local function shell(command)
  local pipe = io.popen(command)
  local text = pipe:read("*a")
  pipe:close()
  return text
end

-- Run code in a Lua of its own. What it printed, and its status.
local run_number = 0
local function lua_runs(code, options)
  run_number = run_number + 1
  local file = os.tmpname()
  local out = assert(io.open(file, "w"))
  out:write("package.path = '", here, "/?.lua;' .. package.path\nlocal ns = require('nunc_stans')\n", code)
  out:close()
  local text = shell((options or "") .. " timeout 60 " .. lua .. " " .. file .. " 2>&1; echo \"status $?\"")
  os.remove(file)
  return text:match("^(.*)status (%d+)\n$")
end

test("the version, and what is not there", function()
  eq(ns.version, "0.2.0")
  eq(ns.READ + ns.WRITE, 12)
end)

test("what is posted runs in order, with its arguments", function()
  local pool, got = ns.pool(), {}
  for i = 1, 1000 do
    pool:post(function(...) got[#got + 1] = select("#", ...) .. tostring((...)) end, i, nil)
  end
  eq(#got, 0)
  pool:shutdown()
  assert(pool:run())
  eq(#got, 1000)
  for i = 1, 1000 do eq(got[i], "2" .. i) end
  pool:close()
  pool:close()
end)

test("a job is over after its run, unless it is rearmed or kept", function()
  local pool, runs = ns.pool(), 0
  local job = pool:job(function(job)
    runs = runs + 1
    if runs < 3 then job:rearm() end
  end)
  eventually(pool, function() return job:over() end)
  eq(runs, 3)
  local kept = pool:job(function() runs = runs + 1 end, {keep = true})
  refused("NS_INVALID_STATE", kept.rearm, kept)
  eventually(pool, function() return runs == 4 end)
  assert(not kept:over())
  kept:rearm()
  eventually(pool, function() return runs == 5 end)
  assert(kept:cancel() and not kept:cancel() and kept:over())
  refused("NS_DELETING", kept.rearm, kept)
  local own = {}
  pool:job(function(job)
    own[1], own[2] = job:cancel(), job:over()
  end)
  eventually(pool, function() return #own == 2 end)
  assert(own[1] and own[2])
  pool:close()
end)

test("timers are never early, repeat, and take any number", function()
  local pool, ticks, begin, late = ns.pool(), 0, socket.gettime(), nil
  pool:after(0.02, function() late = socket.gettime() - begin end)
  eventually(pool, function() return late end)
  assert(late >= 0.0199, late)
  local clock = pool:every(0.001, function() ticks = ticks + 1 end, {cadence = true})
  eventually(pool, function() return ticks >= 5 end)
  clock:cancel()
  refused("NS_INVALID_STATE", function(job) job:rearm() end, pool:after(1e12, os.exit))
  local after = pool:after(-1, function(job)
    assert(job.timed_out and job.fired == 0)
    ticks = 0
  end)
  eventually(pool, function() return after:over() and ticks == 0 end)
  local again, last = 0, nil
  pool:after(0, function(job)
    again = again + 1
    if again == 1 then job:rearm_after(0.01) elseif again == 2 then job:rearm_for(0, 0.01) else last = true end
  end)
  eventually(pool, function() return last end)
  for _, bad in ipairs {0 / 0, "x", {}} do refused("NS_INVALID_REQUEST", pool.after, pool, bad, print) end
  pool:close()
end)

test("a socket is read, then written, then its time is up", function()
  local pool, a, b = ns.pool(), pair()
  local events = {}
  local job = pool:on_readable(a, function(job)
    if job.timed_out then
      events[#events + 1] = "up" .. job.fired
    elseif job.fired == ns.READ then
      events[#events + 1] = a:receive(4)
      job:rearm_for(ns.WRITE, 10)
    else
      eq(job.fired, ns.WRITE)
      a:send("pong")
      job:rearm_for(ns.READ, 0.01)
    end
  end)
  b:send("ping")
  eventually(pool, function() return job:over() end)
  eq(table.concat(events, " "), "ping up0")
  b:settimeout(10)
  eq(b:receive(4), "pong")
  local seen = 0
  local persistent = pool:on_io(a, ns.READ, function() seen = seen + #a:receive(1) end, {persist = true})
  for i = 1, 3 do
    b:send("x")
    eventually(pool, function() return seen == i end)
  end
  persistent:cancel()
  pool:close()
  assert(a:send("still open"))
  a:close()
  b:close()
end)

test("errors are contained and reported, whatever they are", function()
  local seen = {}
  local pool = ns.pool{on_error = function(err, trace) seen[#seen + 1] = {err, trace} end}
  local clock = pool:every(0.001, function() error("in a timer") end)
  pool:post(error, {code = 7})
  pool:post(error, nil)
  pool:post(error, setmetatable({}, {__tostring = function() error("again") end}))
  pool:post(function() return nil + 1 end)
  pool:post(coroutine.yield)
  pool:task(function() error("in a task") end)
  local function deep() return 1 + deep() end
  pool:post(deep)
  pool:post(pool.turn, pool, 0)
  eventually(pool, function() return #seen == 9 and clock:over() end)
  pool:post(pool.close, pool) -- shuts it down, and is refused
  eventually(pool, function() return #seen == 10 end)
  local text = ""
  for _, each in ipairs(seen) do
    text = text .. (pcall(tostring, each[1]) and tostring(each[1]) or "?") .. "\n"
    eq(type(each[2]), "string")
    eq(type(each[1]) == "table" and each[1].code or 7, 7)
  end
  for _, what in ipairs {"in a timer", "in a task", "arithmetic", "yield", "stack overflow", "turn: NS_INVALID_STATE"} do
    assert(text:find(what, 1, true), what .. " is not in\n" .. text)
  end
  pool:close()
  local out, status = lua_runs([[
    local pool = ns.pool{on_error = error}
    pool:post(error, "of a callback")
    pool:post(function() pool:shutdown() end)
    pool:run()
    ns.pool{on_error = error}
    print("goes on")]])
  assert(out:find("of a callback", 1, true) and out:find("traceback") and out:find("goes on"), out)
  eq(status, "0")
end)

test("refusals say which call, which result, and why", function()
  local pool = ns.pool()
  local err = refused("NS_INVALID_REQUEST", pool.on_readable, pool, -1, print)
  eq(tostring(err), "on_io: NS_INVALID_REQUEST: ns_add_fd_timeout_job: fd is not an open descriptor")
  refused("NS_INVALID_REQUEST", pool.on_signal, pool, 9, print)
  refused("NS_INVALID_REQUEST", pool.on_signal, pool, "KILL", print)
  refused("NS_INVALID_REQUEST", pool.on_readable, pool, 0.5, print)
  refused("NS_INVALID_REQUEST", pool.on_io, pool, 0, 1024, print)
  for _, call in ipairs {"post", "job", "after", "every", "on_signal", "on_readable"} do
    refused("NS_INVALID_REQUEST", pool[call], pool, call ~= "post" and call ~= "job" and 1 or nil)
  end
  assert(tostring(refused("NS_INVALID_REQUEST", ns.pool, {framework = "no such"})):find('"no such"', 1, true))
  refused("NS_INVALID_STATE", pool.sleep, pool, 1)
  pool:shutdown()
  assert(pool:is_shutdown())
  for _, call in ipairs {"post", "job"} do refused("NS_SHUTDOWN", pool[call], pool, print) end
  refused("NS_SHUTDOWN", pool.group, pool)
  eq(next(pool._live), nil)
  pool:close()
  local lines = {}
  local was = ns.log
  ns.log = function(priority, text) lines[#lines + 1] = priority .. text end
  ns.pool():close()
  ns.log = was
  assert(#lines > 0)
end)

test("a closed pool refuses, and so do its handles", function()
  local pool, a, b = ns.pool(), pair()
  local group = pool:group()
  local ran = 0
  local jobs = {pool:after(1000, os.exit), pool:job(function() ran = ran + 1 end, {keep = true}),
    pool:every(1e-5, function() end), pool:on_readable(a, os.exit), group:after(1000, os.exit),
    group:job(function() ran = ran + 1 end, {keep = true})}
  local held = pool:group()
  held:suspend()
  held:post(os.exit, 3)
  pool:close()
  eq(ran, 2)
  for _, job in ipairs(jobs) do
    assert(job:over() and not job:cancel())
    refused("NS_DELETING", job.rearm, job)
  end
  for _, call in ipairs {"post", "turn", "shutdown", "wait_fd", "group"} do refused("NS_SHUTDOWN", pool[call], pool, print) end
  for _, call in ipairs {"post", "cancel", "suspend", "length"} do refused("NS_SHUTDOWN", group[call], group, print) end
  eq(next(pool._live), nil)
  a:close()
  b:close()
end)

test("nothing is left of jobs and pools, also of those that nobody closed", function()
  local kept = setmetatable({}, {__mode = "v"})
  for i = 1, slow and 20 or 400 do -- often enough for LuaJIT to compile what finalizers run, too
    local pool, thing = ns.pool(), {}
    local function use() print(thing) end
    kept[#kept + 1], kept[#kept + 2] = pool, thing
    pool:after(1000, use)
    pool:job(use, {keep = true}):cancel()
    pool:on_readable(0, use, {timeout = 1000}):cancel()
    local group = pool:group()
    group:suspend()
    group:post(use)
    pool:task(function() pool:sleep(1000) use() end)
    pool:turn(0)
    if i % 2 == 0 then pool:close() end
  end
  if jit then jit.flush() end -- code that LuaJIT compiled for one closure keeps it, and what it refers to
  for _ = 1, 4 do collectgarbage() end
  eq(next(kept), nil)
end)

test("a group keeps order, and is waited for", function()
  local pool, order = ns.pool(), {}
  local group = pool:group()
  for i = 1, 500 do group:post(function() order[#order + 1] = i end) end
  group:after(0.01, function() order[#order + 1] = 501 end)
  eq(group:length(), 500)
  assert(group:wait())
  eq(#order, 501)
  for i = 1, 501 do eq(order[i], i) end
  group:after(1000, os.exit)
  eq(group:wait(0.01), false)
  local refusal
  group:post(function() refusal = select(2, pcall(group.wait, group)) end)
  eventually(pool, function() return refusal end)
  eq(refusal.name, "NS_INVALID_STATE")
  group:cancel()
  assert(group:wait(10))
  group:release()
  eventually(pool, function() return next(pool._live) == nil end)
  refused("NS_SHUTDOWN", group.suspend, group)
  pool:close()
end)

test("a group is suspended, limited, cancelled", function()
  local pool = ns.pool()
  local group = pool:group()
  group:suspend()
  group:limit(3)
  for _ = 1, 3 do group:post(os.exit, 3) end
  refused("NS_OVERLOADED", group.post, group, print)
  eq(group:length(), 3)
  local job = group:after(1000, os.exit)
  group:cancel()
  assert(job:over() and not job:cancel())
  refused("NS_DELETING", group.post, group, print)
  refused("NS_DELETING", group.job, group, print)
  refused("NS_DELETING", job.rearm, job)
  group:resume()
  refused("NS_INVALID_STATE", group.resume, group)
  assert(group:wait(10))
  local other, ran = pool:group(2), 0
  other:job(function(job)
    ran = ran + 1
    other:cancel()
    assert(job:over())
    ran = ran + #refused("NS_INVALID_STATE", job.rearm, job).call
  end)
  assert(other:wait(10))
  eq(ran, 6)
  pool:close()
end)

test("signals", function()
  local pool, seen = ns.pool(), 0
  local job = pool:on_signal("USR1", function() seen = seen + 1 end, {persist = true})
  for i = 1, 3 do
    os.execute("kill -USR1 " .. pid)
    eventually(pool, function() return seen == i end)
  end
  job:cancel()
  local came
  pool:task(function()
    pool:signal("USR2")
    came = true
  end)
  pool:turn(0) -- now it waits
  os.execute("kill -USR2 " .. pid)
  eventually(pool, function() return came end)
  pool:close()
end)

test("tasks serve a hundred clients", function()
  local pool, listener = ns.pool(), assert(socket.bind("127.0.0.1", 0, 200))
  listener:settimeout(0)
  local port, done = select(2, listener:getsockname()), 0
  pool:task(function()
    while done < 100 do
      if pool:readable(listener, 0.05) then
        local client = listener:accept()
        pool:task(function()
          client:settimeout(0)
          for _ = 1, 10 do
            assert(pool:readable(client, 30))
            assert(pool:writable(client, 30))
            client:send(client:receive(5))
          end
          client:close()
        end)
      end
    end
  end)
  for number = 1, 100 do
    pool:task(function()
      local mine = assert(socket.connect("127.0.0.1", port))
      mine:settimeout(0)
      for round = 1, 10 do
        local line = ("%03d%02d"):format(number % 1000, round)
        mine:send(line)
        assert(pool:readable(mine, 30))
        eq(mine:receive(5), line)
      end
      mine:close()
      done = done + 1
    end)
  end
  eventually(pool, function() return done == 100 end)
  local timed = {}
  pool:task(function()
    timed[1] = pool:readable(listener, 0.001)
    pool:sleep(0.001)
    timed[2] = true
  end)
  eventually(pool, function() return timed[2] end)
  eq(timed[1], false)
  pool:close()
  listener:close()
end)

test("a task ends with its pool or group, where it is", function()
  local pool, at = ns.pool(), {}
  local group = pool:group()
  if not jit then
    closed = 0
    local waits = load [[local pool, group = ...
      local x <close> = setmetatable({}, {__close = function() closed = closed + 1 end})
      group:sleep(1000)
      os.exit(4)]]
    pool:task(waits, pool, pool)
    group:task(waits, pool, group)
    local x = load "local pool <close> = ...; pool:shutdown()"
    x(ns.pool())
  end
  group:task(function()
    at[1] = true
    group:readable(0, 1000)
    at[2] = true
  end)
  eventually(pool, function() return at[1] end)
  group:cancel()
  group:wait(10)
  pool:close()
  eq(at[2], nil)
  eq(closed, not jit and 2 or nil)
end)

test("a pool lives in another loop by its wait descriptor", function()
  local pool, ticks = ns.pool(), 0
  local fd = pool:wait_fd()
  assert(fd > 2)
  local began = socket.gettime()
  local clock = pool:every(0.005, function() ticks = ticks + 1 end)
  pool:post(function() ticks = ticks + 100 end)
  while ticks < 105 do
    eq(#socket.select({{getfd = function() return fd end}}, nil, 10), 1)
    pool:turn(0)
  end
  assert(socket.gettime() - began >= 0.02)
  clock:cancel()
  while pool:turn(0) do end -- the library's own work
  eq(select(2, pool:turn(0)), "NS_TIMEOUT")
  eq(#socket.select({{getfd = function() return fd end}}, nil, 0), 0)
  pool:close()
end)

test("pools turn each other, from any coroutine", function()
  local outer, inner, order = ns.pool(), ns.pool(), {}
  local function turn_in_a_coroutine(pool)
    local co = coroutine.create(function() pool:run(5) end)
    assert(coroutine.resume(co))
    co = nil
    collectgarbage()
  end
  outer:post(function()
    for i = 1, 50 do inner:post(function() order[#order + 1] = i end) end
    inner:post(inner.shutdown, inner)
    turn_in_a_coroutine(inner)
    order[#order + 1] = "out"
  end)
  outer:post(function() collectgarbage() order[#order + 1] = "next" end)
  outer:post(outer.shutdown, outer)
  turn_in_a_coroutine(outer)
  eq(#order, 52)
  eq(order[51] .. order[52], "outnext")
  outer:close()
  inner:close()
end)

test("a hot loop that LuaJIT compiles goes on being right", function()
  local pool, sum = ns.pool(), 0
  local job = pool:after(1000, os.exit, {keep = true})
  for i = 1, slow and 500 or 20000 do
    pool:post(function(n) sum = sum + n end, i % 2)
    refused("NS_INVALID_STATE", job.rearm, job) -- logs, into Lua
    pool:turn(0)
  end
  eventually(pool, function() return sum == (slow and 250 or 10000) end)
  pool:close()
end)

test("the process has one thread, and every callback runs in it", function()
  local pool = ns.pool()
  local tasks
  for _ = 1, 20 do pool:every(1e-5, function() end) end
  pool:after(0.02, function() tasks = tonumber(shell("ls /proc/" .. pid .. "/task | wc -l")) end)
  eventually(pool, function() return tasks end)
  eq(tasks, 1)
  pool:close()
end)

test("a forked child gets refusals, and its parent goes on", function()
  local out, status = lua_runs([[
    local fork, wait
    if jit then
      local ffi = require("ffi")
      ffi.cdef("int fork(void); int waitpid(int, int *, int);")
      fork = ffi.C.fork
      wait = function(pid)
        local status = ffi.new("int[1]")
        ffi.C.waitpid(pid, status, 0)
        return status[0] / 256
      end
    else
      require("fork")
      fork, wait = _G.fork, _G.wait
    end
    local pool, ran = ns.pool()
    pool:after(0, function() ran = true end)
    local child = fork()
    if child == 0 then
      local ok, err = pcall(pool.post, pool, print)
      os.exit(err.name == "NS_SHUTDOWN" and 7 or 1, true)
    end
    print(wait(child))
    pool:turn(1)
    print(ran)]])
  eq(out, "7\ntrue\n")
  eq(status, "0")
end)

-- The rest starts Lua again, which tells nothing new under valgrind.
if not slow then
  local count = full and 10000 or 100
  test(count .. " exits under fire", function()
    local under_fire = [[
      local socket, how = require("socket"), arg[1]
      local pools = {}
      local a = socket.udp4()
      for i = 1, 3 do
        local pool = ns.pool{on_error = print}
        pools[i] = pool
        for j = 1, 10 do
          pool:every(1e-5 * j, function() pool:post(function() end) end)
          pool:on_writable(a, function() end, {persist = true})
          pool:job(function(job) job:rearm() end)
          pool:task(function() while true do pool:sleep(0) end end)
        end
        pool:on_signal("USR1", function() end, {persist = true})
        pool:group():every(1e-5, function() end)
      end
      local function ends()
        if how == "1" then os.exit(0) elseif how == "2" or how == "4" then os.exit(0, true) elseif how == "3" then
          pools[1], pools[2] = nil, nil
          collectgarbage()
          os.exit(0, true)
        end
        pools[1]:shutdown()
      end
      pools[2]:post(function() pools[3]:turn(0) pools[1]:turn(0) end)
      for _ = 1, 5 do for i = 1, 3 do pools[i]:turn(0.001) end end
      pools[1]:after(tonumber(arg[2]) * 1e-4, ends)
      if how == "4" then pools[1]:after(0, function() pools[2]:post(ends) while true do pools[2]:turn() end end) end
      pools[1]:run(10)
      if how == "0" then error({}) end]]
    local file = os.tmpname()
    local out = assert(io.open(file, "w"))
    out:write("package.path = '", here, "/?.lua;' .. package.path\nlocal ns = require('nunc_stans')\n", under_fire)
    out:close()
    local bad = shell(("for i in $(seq %d); do timeout 60 %s %s $((i %% 6)) $((i %% 7)) 2>/dev/null; " ..
      "s=$?; [ $s = $((i %% 6 == 0)) ] || echo $i: status $s; done"):format(count, lua, file))
    os.remove(file)
    eq(bad, "")
  end)

  test("the echo server serves a hundred clients, and ends on SIGTERM", function()
    local pipe = io.popen("echo $$; LUA_PATH='" .. here .. "/?.lua;;' exec " .. lua .. " " .. here .. "/examples/echo.lua 0")
    local server, port = pipe:read("*n", "*n")
    local clients = {}
    local text = ("0123456789abcdef"):rep(1000)
    for i = 1, 100 do
      clients[i] = assert(socket.connect("127.0.0.1", port))
      clients[i]:settimeout(30)
    end
    for _ = 1, 3 do
      for i = 1, 100 do assert(clients[i]:send(i .. text .. "\n")) end
      for i = 1, 100 do eq(clients[i]:receive("*l"), i .. text) end
    end
    os.execute("kill -TERM " .. server)
    pipe:read("*a") -- until it has ended
    local ended = pipe:close() -- in LuaJIT, it has no status
    assert(ended)
    for i = 1, 100 do clients[i]:close() end
  end)

  test("Ctrl-C ends a wait", function()
    local out, status = lua_runs([[
      os.execute("(sleep 0.1; kill -INT " .. io.open("/proc/self/stat"):read("*n") .. ") &")
      print(select(2, pcall(function() ns.pool():run(20) end)))]])
    assert(out:find("interrupted", 1, true), out)
    eq(status, "0")
    for _ = 1, 10 do -- also where callbacks run all the time
      out, status = lua_runs([[
        local pool = ns.pool()
        for _ = 1, 10 do pool:every(1e-6, function() end) end
        os.execute("kill -INT " .. io.open("/proc/self/stat"):read("*n") .. " &")
        pcall(pool.run, pool, 0.05)
        pcall(pool.run, pool, 0.01)
        assert(not pool:run(0.01))
        pool:close()
        print("closed")]])
      assert(out:find("closed\n$"), out)
      eq(status, "0")
    end
  end)
end

print(passed .. " passed, " .. failed .. " failed")
os.exit(failed == 0 and passed > 0, true)
