// SPDX-License-Identifier: GPL-3.0-or-later
'use strict'
// Pools, jobs and groups, on real sockets, timers and signals.
const assert = require('node:assert/strict')
const { execFile, spawn, execFileSync } = require('node:child_process')
const { once } = require('node:events')
const fs = require('node:fs')
const net = require('node:net')
const os = require('node:os')
const path = require('node:path')
const { performance } = require('node:perf_hooks')
const test = require('node:test')
const { Worker } = require('node:worker_threads')
const { Pool, NuncStansError, READ, WRITE, version } = require('..')

const index = path.resolve(__dirname, '..')
const never = () => process.abort()
const nothing = () => {}
const refused = (code, f) => assert.throws(f, error => error instanceof NuncStansError && error.code === code)
const rejected = (code, promise) => assert.rejects(promise, error => error instanceof NuncStansError && error.code === code)

async function eventually (condition) {
  const end = Date.now() + 30000
  while (!condition()) {
    assert(Date.now() < end, 'it never came')
    await new Promise(setImmediate)
  }
}

async function withPool (f, how) {
  const pool = new Pool(how)
  try {
    await f(pool)
  } finally {
    await pool.close()
    assert.equal(pool._live.size, 0)
  }
}

// A TCP connection: a client of Node's, and the descriptor of the other end, which Node does not read.
async function pair () {
  const server = net.createServer({ pauseOnConnect: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = net.connect(server.address().port, '127.0.0.1')
  const [socket] = await once(server, 'connection')
  await once(client, 'connect')
  server.close()
  return { client, fd: socket._handle.fd, end () { client.destroy(); socket.destroy() } }
}

test('the version, and the constants', () => {
  assert.equal(version, '0.2.0')
  assert.equal(READ + WRITE, 12)
})

test('what is posted runs in order, in a later turn', () => withPool(async pool => {
  const got = []
  for (let i = 0; i < 1000; i++) pool.post((...args) => got.push(args), i, undefined)
  assert.equal(got.length, 0)
  pool.shutdown()
  await pool.wait()
  assert.deepEqual(got, Array.from({ length: 1000 }, (_, i) => [i, undefined]))
}))

test('a job is over after its run, unless it is rearmed or kept', () => withPool(async pool => {
  let runs = 0
  const job = pool.job(job => { if (++runs < 3) job.rearm() })
  await eventually(() => job.over)
  assert.equal(runs, 3)
  const kept = pool.job(() => runs++, { keep: true })
  refused('NS_INVALID_STATE', () => kept.rearm())
  await eventually(() => runs === 4)
  assert(!kept.over)
  kept.rearm()
  await eventually(() => runs === 5)
  assert(kept.cancel() && !kept.cancel() && kept.over)
  refused('NS_DELETING', () => kept.rearm())
  let own
  pool.job(job => { own = [job.cancel(), job.over] })
  await eventually(() => own)
  assert.deepEqual(own, [true, true])
}))

test('timers are never early, repeat, and take any number', () => withPool(async pool => {
  const begin = performance.now()
  assert.equal(await pool.sleep(0.02), false)
  assert(performance.now() - begin >= 20)
  let ticks = 0
  const clock = pool.every(0.001, () => ticks++, { cadence: true })
  await eventually(() => ticks >= 5)
  clock.cancel()
  refused('NS_INVALID_STATE', () => pool.after(1e12, never).rearm())
  const runs = []
  const again = pool.after(-1, job => {
    runs.push([job.fired, job.timedOut])
    if (runs.length === 1) job.rearmAfter(0.01)
    if (runs.length === 2) job.rearmFor(0, 0.01)
  })
  await eventually(() => again.over)
  assert.deepEqual(runs, [[0, true], [0, true], [0, true]])
  for (const bad of [NaN, 'x', null]) refused('NS_INVALID_REQUEST', () => pool.after(bad, nothing))
}))

test('a socket is read, then written, then its time is up', () => withPool(async pool => {
  const { client, fd, end } = await pair()
  const events = []
  const buffer = Buffer.alloc(100)
  const job = pool.onReadable(fd, job => {
    if (job.timedOut) {
      events.push('time is up')
    } else if (job.fired === READ) {
      events.push(buffer.toString('utf8', 0, fs.readSync(fd, buffer)))
      job.rearmFor(WRITE, 10)
    } else {
      assert.equal(job.fired, WRITE)
      fs.writeSync(fd, 'pong')
      job.rearmFor(READ, 0.01)
    }
  })
  client.write('ping')
  assert.equal(String((await once(client, 'data'))[0]), 'pong')
  await eventually(() => job.over)
  assert.deepEqual(events, ['ping', 'time is up'])
  assert.equal(await pool.readable(fd, 0.001), false)
  assert.equal(await pool.writable(fd), true)
  let seen = 0
  const persistent = pool.onReady(fd, READ, () => { seen += fs.readSync(fd, buffer) }, { persist: true })
  for (let i = 1; i <= 3; i++) {
    client.write('x')
    await eventually(() => seen === i)
  }
  persistent.cancel()
  fs.writeSync(fd, 'still open')
  await once(client, 'data')
  end()
}))

test('a descriptor that Node has nothing for: a FIFO', () => withPool(async pool => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ns-'))
  const name = path.join(directory, 'fifo')
  execFileSync('mkfifo', [name])
  const fd = fs.openSync(name, fs.constants.O_RDWR | fs.constants.O_NONBLOCK)
  const wait = pool.readable(fd, 30)
  spawn('sh', ['-c', 'echo hello >"$0"', name])
  assert.equal(await wait, true)
  const buffer = Buffer.alloc(6)
  fs.readSync(fd, buffer)
  assert.equal(String(buffer), 'hello\n')
  fs.closeSync(fd)
  fs.rmSync(directory, { recursive: true })
}))

test('errors in callbacks are contained and reported', async () => {
  const seen = []
  await withPool(async pool => {
    const clock = pool.every(0.001, () => { throw new TypeError('in a timer') })
    pool.post(() => { throw undefined }) // eslint-disable-line no-throw-literal
    pool.post(async () => { throw new Error('in a promise') })
    const kept = pool.job(() => { throw new Error('kept') }, { keep: true })
    pool.post(function deep () { return 1 + deep() })
    await eventually(() => seen.length === 5 && clock.over && kept.over)
    assert.deepEqual(new Set(seen.map(error => error?.message)),
      new Set(['in a timer', undefined, 'in a promise', 'kept', 'Maximum call stack size exceeded']))
    pool.post(() => pool.shutdown())
    pool.post(() => pool.post(nothing))
    await pool.wait()
    assert.equal(seen.length, 5)
  }, { onError: error => seen.push(error) })
  if (slow.skip) return
  const { stdout, stderr } = await run(`
    const pool = new Pool({ onError () { throw new Error('again') } })
    pool.post(() => { throw new Error('of a callback') })
    new Pool().post(() => { throw new Error('without a handler') })
    setTimeout(() => { console.log('goes on'); process.exit() }, 100)`)
  assert.equal(stdout, 'goes on\n')
  assert.match(stderr, /again/)
  assert.match(stderr, /error in a callback: Error: without a handler\n +at /)
})

test('refusals say which call, which result, and why', () => withPool(async pool => {
  assert.throws(() => pool.onReadable(-1, nothing), {
    name: 'NuncStansError', call: 'onReady', code: 'NS_INVALID_REQUEST', message: 'onReady: NS_INVALID_REQUEST: ns_add_fd_timeout_job: fd is not an open descriptor'
  })
  const bad = [() => pool.onSignal('SIGKILL', nothing), () => pool.onSignal('SIGNONE', nothing), () => pool.onReadable(0.5, nothing),
    () => pool.onReadable(2 ** 32, nothing), () => pool.onReady(0, 1024, nothing), () => pool.onReady(0, 0, nothing),
    () => pool.post(), () => pool.job(), () => pool.after(1), () => pool.every(1), () => pool.group(-1)]
  for (const call of bad) refused('NS_INVALID_REQUEST', call)
  assert.throws(() => new Pool({ framework: 'none of these' }), /"none of these"/)
  await rejected('NS_INVALID_REQUEST', pool.readable(-1))
  pool.shutdown()
  assert(pool.isShutdown)
  for (const call of [() => pool.post(nothing), () => pool.job(nothing), () => pool.group()]) refused('NS_SHUTDOWN', call)
  await pool.wait()
}))

test('a closed pool refuses, and so do its handles', async () => {
  const pool = new Pool()
  const group = pool.group()
  const held = pool.group()
  const { fd, end } = await pair()
  const jobs = [pool.after(1000, never), pool.job(nothing, { keep: true }), pool.every(1e-5, nothing), pool.onReadable(fd, never),
    group.after(1000, never), group.job(nothing, { keep: true })]
  held.suspend()
  held.post(never)
  const waits = [pool.sleep(1000), group.readable(fd), pool.readable(fd, 1000)].map(wait => rejected('NS_DELETING', wait))
  let closed
  pool.post(() => { closed = pool.close() }) // in its own callback: when that has returned
  await eventually(() => closed)
  await closed
  await Promise.all(waits)
  await pool.close()
  for (const job of jobs) {
    assert(job.over && !job.cancel())
    refused('NS_DELETING', () => job.rearm())
  }
  for (const call of [() => pool.post(nothing), () => pool.shutdown(), () => pool.unref(), () => group.post(nothing),
    () => group.cancel(), () => group.length, () => group.suspend()]) refused('NS_SHUTDOWN', call)
  assert.equal(await group.wait(), true)
  assert.equal(pool._live.size, 0)
  end()
})

test('a group keeps order, and is waited for', () => withPool(async pool => {
  const order = []
  const group = pool.group()
  for (let i = 0; i < 500; i++) group.post(() => order.push(i))
  group.after(0.01, () => order.push(500))
  assert.equal(group.length, 500)
  assert.equal(await group.wait(), true)
  assert.deepEqual(order, Array.from({ length: 501 }, (_, i) => i))
  group.after(1000, never)
  assert.equal(await group.wait(0.01), false)
  group.cancel()
  assert.equal(await group.wait(10), true)
  group.release()
  await eventually(() => pool._live.size === 0)
  refused('NS_SHUTDOWN', () => group.suspend())
}))

test('a group is suspended, limited, cancelled', () => withPool(async pool => {
  const group = pool.group()
  group.suspend()
  group.limit(3)
  for (let i = 0; i < 3; i++) group.post(never)
  refused('NS_OVERLOADED', () => group.post(nothing))
  assert.equal(group.length, 3)
  const job = group.after(1000, never)
  const wait = rejected('NS_DELETING', group.sleep(1000))
  group.cancel()
  await wait
  assert(job.over && !job.cancel())
  for (const call of [() => group.post(nothing), () => group.job(nothing), () => job.rearm()]) refused('NS_DELETING', call)
  group.resume()
  refused('NS_INVALID_STATE', () => group.resume())
  assert.equal(await group.wait(10), true)
  const other = pool.group(2)
  let over
  other.job(job => {
    other.cancel()
    over = job.over
  })
  assert.equal(await other.wait(10), true)
  assert.equal(over, true)
}))

test('signals', () => withPool(async pool => {
  let seen = 0
  const job = pool.onSignal('SIGUSR2', () => seen++, { persist: true })
  for (let i = 1; i <= 20; i++) {
    process.kill(process.pid, 'SIGUSR2')
    await eventually(() => seen === i)
  }
  job.cancel()
}))

test('microtasks and ticks run after each callback, and asynchronous context is kept apart', () => withPool(async pool => {
  const order = []
  for (const n of [1, 2]) {
    pool.post(() => {
      order.push(n)
      process.nextTick(() => order.push(`tick ${n}`))
      Promise.resolve().then(() => order.push(`promise ${n}`))
    })
  }
  await eventually(() => order.length === 6)
  assert.deepEqual(order, [1, 'tick 1', 'promise 1', 2, 'tick 2', 'promise 2'])
}))

// The rest starts Node again, which tells nothing new under a sanitizer.
const slow = { skip: Boolean(process.env.NS_SLOW) }

// Run code in a Node of its own.
const head = `const { Pool } = require(${JSON.stringify(index)}); const net = require('node:net');`
function run (code, ...args) {
  return new Promise(resolve => {
    execFile(process.execPath, ['-e', head + code, '--', ...args], { timeout: 60000 }, (error, stdout, stderr) =>
      resolve({ status: error ? error.signal ?? error.code : 0, stdout, stderr }))
  })
}

test('an open pool keeps Node running, until it has been shut down, or not after unref()', slow, async () => {
  const begin = performance.now()
  const kept = await run('const pool = new Pool(); pool.after(0.3, () => { console.log(1); pool.shutdown() })')
  assert.deepEqual([kept.status, kept.stdout, kept.stderr], [0, '1\n', ''])
  assert(performance.now() - begin >= 300)
  const not = await run('const pool = new Pool(); pool.after(50, () => {}); pool.unref(); pool.ref(); pool.unref()')
  assert.deepEqual([not.status, not.stderr], [0, ''])
})

test('the pool adds no thread to Node', slow, async () => {
  const code = `const { readdirSync } = require('node:fs'); const count = () => readdirSync('/proc/self/task').length
    const before = count(); const pool = new Pool(); pool.every(1e-5, () => {})
    pool.after(0.05, () => { console.log(count() - before); process.exit() })`
  assert.equal((await run(code)).stdout, '0\n')
})

// Everything fires while it ends, in one of these ways.
const fire = `
  const how = process.argv.at(-1)
  const pools = [1, 2, 3].map(() => new Pool({ onError (error) { console.error(error); process.exit(9) } }))
  for (const pool of pools) {
    const group = pool.group()
    const wait = async () => { for (;;) await pool.sleep(0) }
    for (let i = 0; i < 10; i++) {
      pool.every(1e-5, () => pool.post(() => {}))
      pool.job(job => job.rearm())
      group.every(1e-5, () => {})
      pool.job(() => {}, { keep: true })
      wait().catch(() => {})
    }
    pool.onSignal('SIGUSR2', () => {}, { persist: true })
  }
  const held = pools[0].group(); held.suspend(); held.post(() => {})
  process.kill(process.pid, 'SIGUSR2')
  const end = {
    main () { for (const pool of pools) pool.unref() },
    callback () { pools[1].after(0.005, () => process.exit()) },
    timer () { setTimeout(() => process.exit(), 5) },
    thrown () { process.on('uncaughtException', () => process.exit()); setTimeout(() => { throw new Error() }, 5) },
    closing () { pools[0].after(0.003, async () => { pools[1].post(() => process.exit()); await pools[1].close() }) },
    close () { setTimeout(() => Promise.all(pools.map(pool => pool.close())), 5) },
    worker () {}
  }
  end[how]?.()`

test('exits under fire', slow, async () => {
  const ways = ['main', 'callback', 'timer', 'thrown', 'closing', 'close']
  const count = process.env.NS_COUNT === 'full' ? 10000 : 96
  let next = 0
  const runner = async () => {
    while (next < count) {
      const way = ways[next++ % ways.length]
      const ended = await run(fire, way)
      assert.deepEqual([way, ended.status, ended.stderr], [way, 0, ''])
    }
  }
  await Promise.all([runner(), runner()])
})

test('a worker thread of Node is ended under fire', async () => {
  for (let i = 0; i < 20; i++) {
    const code = head + fire + (i % 2 ? '; pools[0].post(() => process.exit())' : '')
    const worker = new Worker(code, { eval: true, argv: ['worker'] })
    await once(worker, 'online')
    if (i % 2 === 0) {
      await new Promise(resolve => setTimeout(resolve, 5))
      await worker.terminate()
    } else {
      await once(worker, 'exit')
    }
  }
})

test('the echo server serves a hundred clients, and ends on SIGTERM', slow, async () => {
  const server = spawn(process.execPath, [path.join(index, 'examples/echo.js'), '0'], { stdio: ['ignore', 'pipe', 'inherit'] })
  const port = Number((await once(server.stdout, 'data'))[0])
  const text = '0123456789abcdef'.repeat(1000)
  const sockets = await Promise.all(Array.from({ length: 100 }, async (_, i) => {
    const client = net.connect(port, '127.0.0.1')
    let got = ''
    client.on('data', data => { got += data })
    for (let round = 1; round <= 3; round++) {
      client.write(i + text)
      while (got.length < round * (i + text).length) await once(client, 'data')
    }
    assert.equal(got, (i + text).repeat(3))
    client.on('error', () => {})
    return client
  }))
  server.kill('SIGTERM')
  assert.deepEqual(await once(server, 'exit'), [0, null])
  for (const client of sockets) client.destroy()
})
