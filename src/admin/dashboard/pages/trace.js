// One recording of packets, as it grows.

import { address, get, post, remove } from '../lib/api.js'
import { h, repeat, setText } from '../lib/dom.js'
import { byName, bytes, count, instant, moment, words } from '../lib/format.js'
import * as route from '../lib/route.js'
import { ask, attempt, button, link, pageHead, panel, table, tiles, trouble } from '../lib/ui.js'
import { whatOf } from './logs.js'

export const title = 'Trace'
export const titleOf = ([id]) => `Trace ${id}`

// Packets that the page shows, and that one question gets.
const PACKETS_SHOWN = 1000
const PAGE = 500

// What is in a column of its own.
const APART = new Set(['number', 'at_us', 'direction', 'client', 'packet', 'user', 'address', 'version'])

export async function show({ parts: [id] }, signal) {
  const first = await get(['traces', id], {}, signal)
  const wrong = trouble()
  const numbers = tiles([
    ['state', 'State'],
    ['packets', 'Packets'],
    ['bytes', 'Bytes'],
    ['since', 'Since'],
    ['until', 'Until'],
  ])
  const packets = table({
    caption: 'Packets',
    key: ({ number }) => number,
    empty: 'No packet has come yet.',
    columns: [
      { head: 'Number', text: ({ number }) => number, kind: 'number' },
      { head: 'At', text: ({ at_us: at }) => instant(at / 1000), kind: 'code' },
      { head: 'Way', text: ({ direction }) => ({ in: '→ broker', out: 'broker →' })[direction], kind: 'nowrap' },
      { head: 'Client', text: ({ client }) => client, kind: 'wide' },
      { head: 'Packet', text: ({ packet }) => packet, kind: 'code' },
      { head: 'What it says', text: said, kind: 'code break' },
    ],
  })
  const note = h('p', { className: 'note', role: 'status' })
  const stop = button('Stop', async () => {
    await attempt(() => post(['traces', id, 'stop']), 'The recording has ended.')
    refresh()
  })
  const away = button(
    'Delete…',
    () =>
      ask({
        heading: `Delete trace ${id}?`,
        text: 'What was recorded is gone.',
        submit: 'Delete',
        kind: 'danger',
        act: async () => {
          await remove(['traces', id])
          route.go('logs')
        },
      }),
    { kind: 'danger' },
  )
  const download = h('a', { className: 'button', href: address(['traces', id, 'download']).href, download: `trace-${id}.ndjson` }, 'Download')

  const shown = []
  let after = null
  const update = (trace) => {
    numbers.set({
      state: trace.why ? `${trace.state}: ${trace.why}` : trace.state,
      packets: count(trace.packets),
      bytes: bytes(trace.bytes),
      since: moment(trace.started_at_ms),
      until: moment(trace.ends_at_ms),
    })
    stop.disabled = trace.state === 'ended'
  }
  const refresh = repeat(
    1000,
    signal,
    async () => {
      update(await get(['traces', id], {}, signal))
      while (shown.length < PACKETS_SHOWN) {
        const { items, next } = await get(['traces', id, 'packets'], { after, limit: PAGE }, signal)
        shown.push(...items)
        if (items.length > 0) {
          after = items.at(-1).number
          packets.update(shown)
        }
        if (next === null || items.length === 0) break
      }
      setText(note, shown.length >= PACKETS_SHOWN ? `The first ${count(PACKETS_SHOWN)} are shown: download it for all.` : '')
      wrong.set(null)
    },
    (error) => wrong.set(error),
  )
  update(first)
  packets.update([])
  return h(
    'div',
    { className: 'page' },
    pageHead(`Trace of ${whatOf(first)}`, { back: link('Logs and traces', 'logs'), actions: [download, stop, away] }),
    wrong.element,
    numbers.element,
    panel({ heading: 'Packets' }, note, packets.element),
  )
}

// All other fields that a packet has, in a line.
function said(packet) {
  return Object.entries(packet)
    .filter(([name, what]) => !APART.has(name) && what !== null && what !== undefined && !(Array.isArray(what) && what.length === 0))
    .map(([name, what]) => `${words(name).toLowerCase()}: ${byName(name, what)}`)
    .join('; ')
}
