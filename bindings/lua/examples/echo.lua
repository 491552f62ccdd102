-- SPDX-License-Identifier: GPL-3.0-or-later
-- echo.lua [port] - sends back what TCP clients send, on 127.0.0.1, until SIGTERM or SIGINT. Port 0: any; it prints which.
-- One task for each client. Needs LuaSocket.
local socket = require("socket")
local ns = require("nunc_stans")

local pool = ns.pool()
local listener = assert(socket.bind("127.0.0.1", arg[1] or 7007))
listener:settimeout(0)

local function send(client, data)
  local sent = 0
  while sent < #data do
    local last, err, partial = client:send(data, sent + 1)
    sent = last or partial
    if not last and (err ~= "timeout" or not pool:writable(client, 30)) then return false end
  end
  return true
end

local function serve(client)
  client:settimeout(0)
  while client:dirty() or pool:readable(client, 30) do
    local data, err, partial = client:receive(65536)
    data = data or partial
    if data == "" and err ~= "timeout" or not send(client, data) then break end
  end
  client:close()
end

pool:task(function()
  while true do
    pool:readable(listener)
    local client, err = listener:accept()
    if client then
      pool:task(serve, client)
    elseif err ~= "timeout" then
      pool:sleep(0.1) -- out of descriptors: the client still waits
    end
  end
end)

for _, name in ipairs {"TERM", "INT"} do
  pool:on_signal(name, function() pool:shutdown() end)
end
print(select(2, listener:getsockname()))
io.stdout:flush()
pool:run()
pool:close()
