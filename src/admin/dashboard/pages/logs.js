// The broker's log as it is written, and recordings of packets.

import { events, get, may, post, put, remove } from '../lib/api.js'
import { h, setText } from '../lib/dom.js'
import { bytes, count, instant, moment } from '../lib/format.js'
import * as route from '../lib/route.js'
import { ask, attempt, button, field, link, listing, pageHead, panel, select, toast, trouble } from '../lib/ui.js'

export const title = 'Logs and traces'

const LEVELS = ['error', 'warn', 'info', 'debug', 'trace']
// Lines that are kept in the page.
const LINES_MAX = 1000
const PAGE = 1000

export function show(_, signal) {
  return h('div', { className: 'page' }, pageHead(title), may('operator') && traces(signal), log(signal))
}

// ---- the log

function log(signal) {
  const lines = h('ol', { className: 'log', tabIndex: 0, 'aria-label': 'Log, the newest line last' })
  const wrong = trouble()
  const all = []
  let isHeld = false
  let waiting = 0
  let level = 'info'
  let wanted = ''
  let last = -1

  const isWanted = (entry) => LEVELS.indexOf(entry.level) <= LEVELS.indexOf(level) && (wanted === '' || textOf(entry).toLowerCase().includes(wanted))
  const make = (entry) =>
    h(
      'li',
      { className: `level-${entry.level}` },
      h('time', {}, instant(entry.at_ms)),
      h('span', { className: 'level' }, entry.level),
      h('span', { className: 'text' }, entry.message, ' ', h('span', { className: 'fields' }, fieldsOf(entry))),
    )
  const atEnd = () => lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40
  const add = (entry) => {
    if (entry.number <= last) return
    last = entry.number
    all.push(entry)
    if (all.length > LINES_MAX) all.shift()
    if (isHeld) {
      waiting += 1
      setText(holder, `Go on (${count(waiting)} new)`)
      return
    }
    if (!isWanted(entry)) return
    const follows = atEnd()
    lines.append(make(entry))
    while (lines.childElementCount > LINES_MAX) lines.firstChild.remove()
    if (follows) lines.scrollTop = lines.scrollHeight
  }
  const redraw = () => {
    lines.replaceChildren(...all.filter(isWanted).map(make))
    lines.scrollTop = lines.scrollHeight
  }

  const holder = button('Hold', () => {
    isHeld = !isHeld
    waiting = 0
    setText(holder, isHeld ? 'Go on (0 new)' : 'Hold')
    if (!isHeld) redraw()
  })
  const least = select(LEVELS, {
    value: level,
    on: {
      change: () => {
        level = least.value
        redraw()
      },
    },
  })
  const search = h('input', {
    type: 'search',
    autocomplete: 'off',
    on: {
      input: () => {
        wanted = search.value.toLowerCase()
        redraw()
      },
    },
  })

  // What there is, and then each line as it comes; after a rest what was missed. Lines that come
  // meanwhile wait for those before them.
  let early = []
  let isCaughtUp = false
  const came = (entry) => (isCaughtUp ? add(entry) : early.push(entry))
  const catchUp = async () => {
    isCaughtUp = false
    try {
      let after = last >= 0 ? last : null
      for (;;) {
        const { items, next } = await get(['log'], { after, limit: PAGE }, signal)
        // The broker was started again: lines are numbered anew.
        if (items.length > 0 && items[0].number <= last) last = -1
        items.forEach(add)
        if (next === null || items.length === 0) break
        after = next
      }
      wrong.set(null)
    } catch (error) {
      if (error.name !== 'AbortError') wrong.set(error)
    }
    isCaughtUp = true
    early.forEach(add)
    early = []
  }
  events(['log', 'events'], {}, { line: came }, signal, catchUp)
  catchUp()

  const change = button('Change the level…', () =>
    ask({
      heading: 'Log from which level?',
      text: 'It holds for the whole broker. "debug" and "trace" log single messages.',
      fields: [
        field({ name: 'level', label: 'Level', type: 'select', options: LEVELS, value: 'debug' }),
        field({ name: 'secs', label: 'For so many seconds', type: 'number', min: 1, placeholder: 'until it is changed again', value: 600 }),
      ],
      submit: 'Change',
      act: async ({ level, secs }) => {
        await put(['log', 'level'], secs === null ? { level } : { level, for_secs: secs })
        toast(`The log begins at ${level}.`)
      },
    }),
  )
  return panel(
    { heading: 'Log', actions: [holder, may('admin') && change] },
    h('div', { className: 'filters', role: 'search' }, h('label', { className: 'filter' }, h('span', {}, 'From level'), least), h('label', { className: 'filter' }, h('span', {}, 'With the text'), search)),
    wrong.element,
    lines,
  )
}

function fieldsOf({ fields }) {
  return Object.entries(fields ?? {})
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(' ')
}

function textOf(entry) {
  return `${entry.message} ${fieldsOf(entry)}`
}

// ---- traces

export function whatOf(trace) {
  const kind = ['client', 'user', 'address', 'topic'].find((name) => trace[name] !== undefined && trace[name] !== null)
  return kind ? `${kind} ${trace[kind]}` : 'everything'
}

function traces(signal) {
  const list = listing({
    parts: ['traces'],
    signal,
    every: 2000,
    caption: 'Traces',
    empty: 'No packets are or were recorded.',
    key: ({ id }) => id,
    columns: [
      { head: 'Trace', node: ({ id }) => link(String(id), 'logs', id) },
      { head: 'Of', text: whatOf, kind: 'code break' },
      { head: 'State', text: ({ state, why }) => (why ? `${state}: ${why}` : state) },
      { head: 'Packets', text: ({ packets }) => count(packets), kind: 'number' },
      { head: 'Bytes', text: ({ bytes: size }) => bytes(size), kind: 'number wide' },
      { head: 'Since', text: ({ started_at_ms: at }) => moment(at), kind: 'wide' },
      {
        head: 'Delete',
        hiddenHead: true,
        node: ({ id }) =>
          button('Delete', async () => {
            await attempt(() => remove(['traces', id]), 'The trace is deleted.')
            list.refresh()
          }),
      },
    ],
  })
  const start = button(
    'New trace…',
    () =>
      ask({
        heading: 'Record packets',
        text: 'All packets of a client, a user or an address, or the PUBLISHes to a topic, for a while. It costs the broker a little as long as it goes on.',
        fields: [
          field({
            name: 'of',
            label: 'Of',
            type: 'select',
            options: [
              ['client', 'a client'],
              ['user', 'a user'],
              ['address', 'an IP address'],
              ['topic', 'a topic filter'],
            ],
          }),
          field({ name: 'what', label: 'Which', required: true }),
          field({ name: 'seconds', label: 'Seconds', type: 'number', min: 1, max: 3600, value: 60, required: true }),
          field({ name: 'packets', label: 'Packets, at most', type: 'number', min: 1, max: 100000, value: 1000, required: true }),
          field({ name: 'payload', label: 'Bytes of each payload', type: 'number', min: 0, value: 0, hint: '0: none. Payloads may be confidential.' }),
        ],
        submit: 'Record',
        act: async ({ of, what, seconds, packets, payload }) => {
          const { id } = await post(['traces'], { [of]: what, seconds, packets_max: packets, payload_bytes_max: payload ?? 0 })
          route.go('logs', id)
        },
      }),
    { kind: 'main' },
  )
  return panel({ heading: 'Traces', note: 'Recordings of packets, for a while.', actions: start }, list.element)
}

