// SPDX-License-Identifier: GPL-3.0-or-later
'use strict'
// echo.js [port] - sends back what TCP clients send, on 127.0.0.1, until SIGTERM or SIGINT. Port 0: any; it prints which.
// Node accepts; what comes is read and written by descriptor.
const fs = require('node:fs')
const net = require('node:net')
const { Pool } = require('..')

const pool = new Pool()

// What read(2) or write(2) did; nothing if it would have blocked.
function unlessBlocked (call) {
  try {
    return call()
  } catch (error) {
    if (error.code !== 'EAGAIN') throw error
  }
}

async function serve (socket) {
  const fd = socket._handle.fd
  const buffer = Buffer.allocUnsafe(65536)
  try {
    while (await pool.readable(fd, 30)) {
      const n = unlessBlocked(() => fs.readSync(fd, buffer))
      if (n === 0) break
      for (let sent = 0; sent < n;) {
        sent += unlessBlocked(() => fs.writeSync(fd, buffer, sent, n - sent)) ?? 0
        if (sent < n && !await pool.writable(fd, 30)) return
      }
    }
  } finally {
    socket.destroy()
  }
}

const server = net.createServer({ pauseOnConnect: true }, socket => {
  socket.on('error', () => {})
  serve(socket).catch(error => { if (!error.code?.startsWith('NS_')) console.error(error.message) })
})
server.listen(Number(process.argv[2] ?? 7007), '127.0.0.1', () => console.log(server.address().port))

for (const signal of ['SIGTERM', 'SIGINT']) pool.onSignal(signal, () => pool.shutdown())
pool.wait().then(async () => {
  server.close()
  await pool.close() // which ends what serve() waits for
})
