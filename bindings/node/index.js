// SPDX-License-Identifier: GPL-3.0-or-later
'use strict'
// Nunc Stans in Node's own event loop. README.md shows it. addon.c gives the library's functions one by one, on raw
// pointers; this file sees to it that nobody names what is gone. C knows jobs by number.
const { constants: { signals } } = require('node:os')
const native = require(process.env.NUNC_STANS_ADDON || './build/nunc_stans.node')

const READ = 4
const WRITE = 8
const [TIMER, PERSIST, PRESERVE_FD, CADENCE] = [16, 64, 256, 2048]
const [SUCCESS, SHUTDOWN] = [0, 1]
const isResult = made => made < 4096 // and no address
const [NOW, TIME, FD, SIGNAL] = [0, 1, 2, 3]

// `code` is the result's name, as 'NS_SHUTDOWN'; `call` the function here.
class NuncStansError extends Error {
  constructor (call, code, message) {
    super(`${call}: ${code}: ${message}`)
    this.name = 'NuncStansError'
    this.call = call
    this.code = code
  }
}

function refuse (call, code, message) { throw new NuncStansError(call, code, message) }

function check (result, call) {
  if (result === SUCCESS) return
  // The library has logged why.
  refuse(call, native.result_name(result), native.last_line().trim() || native.result_message(result))
}

function number (call, value, least = -Infinity) {
  if (typeof value !== 'number' || Number.isNaN(value) || value < least) refuse(call, 'NS_INVALID_REQUEST', `not a number that it takes: ${value}`)
  return value
}

function whole (call, value, least = -(2 ** 31)) {
  if (!Number.isInteger(value) || value >= 2 ** 31) refuse(call, 'NS_INVALID_REQUEST', `not a number that it takes: ${value}`)
  return number(call, value, least)
}

function callable (call, value) {
  if (typeof value !== 'function') refuse(call, 'NS_INVALID_REQUEST', 'not a function')
  return value
}

// Zero is no time-out for the library: what is over already is a microsecond.
function timeout (call, seconds) { return seconds === undefined ? 0 : Math.max(number(call, seconds), 1e-6) }

// A job is over when its callback returns without having rearmed it, unless it is `persist` or `keep`.
class Job {
  #arm (call, f, ...args) {
    const raw = this._inside ?? (this.over ? null : this._raw)
    if (!raw) refuse(call, 'NS_DELETING', 'the job is finished with')
    check(f(raw, ...args), call)
    this._rearmed = true
  }

  get over () { return !this._raw || Boolean(this._group?._cancelled) }

  // Arm it again: in its callback, when that returns.
  rearm () { this.#arm('rearm', native.job_rearm) }

  // The same, but it begins to watch only after a time.
  rearmAfter (seconds) { this.#arm('rearmAfter', native.job_rearm_after, number('rearmAfter', seconds)) }

  // The same, for READ, WRITE or their sum; for a timer, 0 and its new time.
  rearmFor (directions, seconds) {
    this.#arm('rearmFor', native.job_rearm_for, whole('rearmFor', directions), timeout('rearmFor', seconds))
  }

  // Finish with it, whatever its state. False: it was over before.
  cancel () {
    if (this.over) return false
    const raw = this._raw
    this._raw = null
    native.job_cancel(raw)
    return true
  }

  _run (fired) {
    const raw = this._inside = this._handle
    this.fired = fired & (READ | WRITE)
    this.timedOut = (fired & TIMER) !== 0
    this._rearmed = false
    const returned = this._pool._contain(this._callback, this)
    this._inside = null
    if (!this.over && !(returned && (this._stays || this._rearmed))) {
      this._raw = null
      native.job_done(raw)
    }
  }
}

// What pools and groups have in common: jobs are added to them.
class Adder {
  _open (call) {
    if (!this._pool._raw || !this._raw) refuse(call, 'NS_SHUTDOWN', 'the pool or group has ended')
    return this._raw
  }

  #add (call, trigger, flags, what, seconds, callback, { persist = false, keep = false } = {}, gone = undefined) {
    this._open(call)
    const pool = this._pool
    const group = this === pool ? undefined : this
    if (group?._cancelled) refuse(call, 'NS_DELETING', 'the group is cancelled')
    const job = new Job()
    Object.assign(job, { _pool: pool, _group: group, _callback: callable(call, callback), _stays: persist || keep, _gone: gone })
    const id = pool._remember(job)
    const raw = native.add_job(pool._raw, trigger, flags | (persist ? PERSIST : 0), id, what, seconds)
    if (isResult(raw)) {
      pool._live.delete(id)
      check(raw, call)
    }
    const result = (group && native.job_set_group(raw, group._raw)) || native.job_rearm(raw)
    if (result !== SUCCESS) native.job_done(raw)
    check(result, call)
    job._raw = job._handle = raw
    return job
  }

  // Call f(...args) once, in a later turn of the loop.
  post (f, ...args) {
    const raw = this._open('post')
    const id = this._pool._remember({ owner: this, f: callable('post', f), args })
    const result = (this === this._pool ? native.post : native.post_group)(raw, id)
    if (result !== SUCCESS) this._pool._live.delete(id)
    check(result, 'post')
  }

  // In a later turn, and again when it is rearmed. Options: keep.
  job (callback, how) { return this.#add('job', NOW, 0, 0, 0, callback, { ...how, persist: false }) }

  // When a time has passed. Options: keep.
  after (seconds, callback, how) { return this.#add('after', TIME, 0, 0, number('after', seconds), callback, { ...how, persist: false }) }

  // Whenever a time has passed, until it is cancelled. Options: cadence (without drift).
  every (seconds, callback, { cadence = false } = {}) {
    return this.#add('every', TIME, cadence ? CADENCE : 0, 0, number('every', seconds), callback, { persist: true })
  }

  // When a signal has arrived: 'SIGTERM', or its number. Node's own handlers of it do not run meanwhile. Options: persist, keep.
  onSignal (signal, callback, how) {
    return this.#add('onSignal', SIGNAL, 0, whole('onSignal', signals[signal] ?? signal), 0, callback, how)
  }

  // When a descriptor is ready for READ, WRITE or their sum, or the time is up. Keep it open until the job is over. Options:
  // timeout, persist, keep.
  onReady (fd, directions, callback, how) { return this.#ready('onReady', fd, directions, callback, how) }
  onReadable (fd, callback, how) { return this.onReady(fd, READ, callback, how) }
  onWritable (fd, callback, how) { return this.onReady(fd, WRITE, callback, how) }

  #ready (call, fd, directions, callback, how, gone) {
    const flags = whole(call, directions, 0) | PRESERVE_FD
    return this.#add(call, FD, flags, whole(call, fd), timeout(call, how?.timeout), callback, how, gone)
  }

  // Until a descriptor is ready. False: the time is up.
  readable (fd, seconds) { return this.#promise((f, gone) => this.#ready('readable', fd, READ, f, { timeout: seconds }, gone)) }
  writable (fd, seconds) { return this.#promise((f, gone) => this.#ready('writable', fd, WRITE, f, { timeout: seconds }, gone)) }
  sleep (seconds) { return this.#promise((f, gone) => this.#add('sleep', TIME, 0, 0, number('sleep', seconds), f, {}, gone)) }

  // Rejected if its pool or group ends first.
  #promise (add) {
    return new Promise((resolve, reject) => {
      add(job => resolve(!job.timedOut), () => reject(new NuncStansError('await', 'NS_DELETING', 'the pool or group has ended')))
    })
  }
}

// Jobs that are cancelled, held back and waited for together. Made by Pool.group().
class Group extends Adder {
  // Finish with all its jobs, and let none in any more.
  cancel () {
    const raw = this._open('cancel')
    this._cancelled = true
    native.group_cancel(raw)
    for (const [id, entry] of this._pool._live) if (entry.owner === this) this._pool._live.delete(id)
  }

  // Give it back. It goes when its jobs are over.
  release () {
    if (!this._held || !this._raw) return
    this._held = false
    native.group_release(this._raw)
  }

  // Let no callback begin until resume(). Counted.
  suspend () { check(native.group_suspend(this._open('suspend')), 'suspend') }
  resume () { check(native.group_resume(this._open('resume')), 'resume') }

  // post() fails with NS_OVERLOADED when so many wait; 0: no limit.
  limit (most) { check(native.group_set_limit(this._open('limit'), whole('limit', most, 0)), 'limit') }

  get length () { return native.group_length(this._open('length')) }

  // Until none of its jobs is armed, queued or running. False: the time is up.
  wait (seconds) {
    return new Promise(resolve => {
      const timer = seconds === undefined ? undefined : setTimeout(() => settle(false), number('wait', seconds) * 1000)
      const settle = came => {
        clearTimeout(timer)
        this._pool._waiting.delete(look)
        resolve(came)
      }
      const look = () => {
        const result = this._raw && this._pool._raw ? native.group_wait(this._raw) : SUCCESS
        if (result === SUCCESS || result === SHUTDOWN) settle(true)
      }
      this._pool._waiting.add(look)
      setImmediate(look)
    })
  }
}

class Pool extends Adder {
  #last = 0
  #stopped
  #looks = false

  // Options: onError(error), framework.
  constructor ({ onError = undefined, framework = '' } = {}) {
    super()
    this._pool = this
    this._live = new Map()
    this._waiting = new Set()
    this._onError = onError
    this.#stopped = new Promise(resolve => { this._stop = resolve })
    const raw = native.pool_new((what, id, fired) => this.#dispatch(what, id, fired), framework)
    if (isResult(raw)) check(raw, 'Pool')
    this._raw = raw
  }

  _remember (entry) {
    this._live.set(++this.#last, entry)
    return this.#last
  }

  // What C calls. Nothing may leave it.
  #dispatch (what, id, fired) {
    const entry = this._live.get(id)
    if (what === 0) {
      entry._run(fired)
    } else if (what === 4) {
      this._stop()
    } else if (entry) {
      this._live.delete(id)
      if (what === 2) this._contain(entry.f, ...entry.args)
      else entry._raw = null
      if (what === 1) entry._gone?.()
    }
    if (this._waiting.size > 0 && !this.#looks) {
      this.#looks = true
      setImmediate(() => {
        this.#looks = false
        for (const look of this._waiting) look()
      })
    }
  }

  // Call what is not ours. True: it returned; else its error was reported.
  _contain (f, ...args) {
    try {
      const result = f(...args)
      if (typeof result?.then === 'function') result.then(undefined, error => this.#report(error))
      return true
    } catch (error) {
      this.#report(error)
      return false
    }
  }

  #report (error) {
    // The pool or group ends: let it pass.
    if (error instanceof NuncStansError && (error.code === 'NS_SHUTDOWN' || error.code === 'NS_DELETING')) return
    try {
      if (this._onError) return void this._onError(error)
    } catch (again) {
      error = again
    }
    try {
      console.error('nunc-stans: error in a callback:', error)
    } catch { }
  }

  group (width = 1) {
    this._open('group')
    const group = Object.assign(new Group(), { _pool: this, _held: true, _cancelled: false })
    const id = this._remember(group)
    const raw = native.group_new(this._raw, whole('group', width, 0), id)
    if (isResult(raw)) this._live.delete(id)
    check(isResult(raw) ? raw : SUCCESS, 'group')
    group._raw = raw
    return group
  }

  // Begin to end it: from anywhere. What was posted still runs.
  shutdown () { native.pool_shutdown(this._open('shutdown')) }

  get isShutdown () { return !this._raw || native.pool_is_shutdown(this._raw) !== 0 }
  get framework () { return native.pool_framework(this._open('framework')) }

  // An open pool keeps Node running, until it has been shut down, but not after unref().
  ref () { native.pool_ref(this._open('ref')) }
  unref () { native.pool_unref(this._open('unref')) }

  // Until it has been shut down, and what was posted before has run.
  wait () { return this.#stopped }

  // Shut it down, run what was posted, cancel what is left, and free it.
  async close () {
    if (!this._raw) return
    this.shutdown()
    // In a callback, or what it has resolved: when the turn is over.
    while (this._raw && native.pool_turning(this._raw)) await new Promise(setImmediate)
    if (!this._raw) return
    while (native.pool_turn(this._raw) === SUCCESS);
    const raw = this._raw
    for (const entry of [...this._live.values()]) {
      if (entry instanceof Job) entry.cancel()
      else if (entry instanceof Group) entry.release()
    }
    this._raw = null
    native.pool_end(raw)
    this._live.clear()
    for (const look of this._waiting) look()
    this._stop()
  }
}

module.exports = { Pool, NuncStansError, READ, WRITE, version: native.version() }
