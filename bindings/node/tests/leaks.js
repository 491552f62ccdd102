// SPDX-License-Identifier: GPL-3.0-or-later
'use strict'
// Pools with everything in them, closed or left to the end of Node: for AddressSanitizer, which then lists what leaked.
const { Pool } = require('..')

async function main () {
  for (let i = 0; i < 20; i++) {
    const pool = new Pool()
    const held = pool.group()
    held.suspend()
    held.post(() => {})
    for (let j = 0; j < 50; j++) {
      pool.job(() => {}, { keep: true })
      pool.every(1e-4, () => {})
      held.after(j, () => {})
      pool.post(() => {})
    }
    await pool.sleep(0.002)
    if (i < 15) await pool.close()
    else pool.unref()
  }
}
main()
