// The broker at a glance, and over the last hour.

import { get } from '../lib/api.js'
import { graph } from '../lib/chart.js'
import { fill, h, repeat } from '../lib/dom.js'
import { bytes, bytesPerSecond, count, NOTHING, percent, perSecond, secs, some, span, yesNo } from '../lib/format.js'
import { live } from '../lib/live.js'
import * as theme from '../lib/theme.js'
import { facts, pageHead, panel, select, table, tiles, trouble } from '../lib/ui.js'

export const title = 'Overview'

const SPANS = [
  ['300', 'Last 5 minutes'],
  ['900', 'Last 15 minutes'],
  ['3600', 'Last hour'],
]

const ms = (value) => span(value)

// Graphs, by the values that the broker has: one that it has nothing for is left out.
const GRAPHS = [
  ['Messages', [['messages_in_per_sec', 'in', perSecond], ['messages_out_per_sec', 'out', perSecond]]],
  ['Bytes', [['bytes_in_per_sec', 'in', bytesPerSecond], ['bytes_out_per_sec', 'out', bytesPerSecond]]],
  ['Latency from PUBLISH to socket', [['latency_p50_ms', 'median', ms], ['latency_p99_ms', '99 %', ms]]],
  ['In queues', [['queued_ready', 'ready', count], ['queued_in_flight', 'in flight', count], ['queued_dead', 'dead letters', count]]],
  ['Connections and sessions', [['connections', 'connections', count], ['sessions', 'sessions', count]]],
  ['Store', [['commits_per_sec', 'commits', perSecond], ['commit_ms', 'a commit takes', ms, 'right']]],
  ['Dropped and refused', [['dropped_per_sec', 'messages dropped', perSecond], ['refused_per_sec', 'connections refused', perSecond]]],
  ['Processor and memory', [['cpu_percent', 'processor', percent], ['resident_bytes', 'memory', bytes, 'right']]],
]

// Days before a certificate ends in which it is time to think of the next.
const DAYS_SHORT = 14

export async function show(_, signal) {
  const numbers = tiles([
    ['connections', 'Connections'],
    ['sessions', 'Sessions'],
    ['in', 'Messages in'],
    ['out', 'Messages out'],
    ['ready', 'Jobs ready'],
    ['flight', 'Jobs in flight'],
    ['dead', 'Dead letters'],
    ['cpu', 'Processor'],
    ['memory', 'Memory'],
  ])
  const warnings = h('ul', { className: 'warnings', 'aria-label': 'Warnings' })
  const about = facts()
  const wrong = trouble()
  const listeners = table({
    caption: 'Listeners',
    key: ({ address }) => address,
    columns: [
      { head: 'Address', text: ({ address }) => address, kind: 'code' },
      { head: 'Protocol', text: ({ protocol, tls }) => `${protocol === 'websocket' ? 'WebSocket' : 'MQTT'}${tls ? ', TLS' : ''}` },
      { head: 'Connections', text: ({ connections }) => count(connections), kind: 'number' },
      { head: 'Certificate', text: ({ certificate_days_left: days }) => (days === null ? NOTHING : some(days, 'day left', 'days left')) },
    ],
  })
  const dropped = table({
    caption: 'What was dropped or refused since the start, and why',
    key: ([name]) => name,
    empty: 'Nothing.',
    columns: [
      { head: 'Reason', text: ([name]) => name.replaceAll('_', ' ') },
      { head: 'Count', text: ([, number]) => count(number), kind: 'number' },
    ],
  })

  let secondsShown = 3600
  const choice = select(SPANS, {
    value: '3600',
    'aria-label': 'How far back',
    on: {
      change: () => {
        secondsShown = Number(choice.value)
        draw(state)
      },
    },
  })
  const graphs = h('div', { className: 'graphs' })
  let shown = []

  const make = (state) => {
    shown.forEach(({ view }) => view.destroy())
    shown = GRAPHS.flatMap(([heading, all]) => {
      const there = all.filter(([name]) => state.has(name))
      if (there.length === 0) return []
      const series = there.map(([key, label, format, scale]) => ({ key, label, format, scale }))
      const view = graph({ heading, series, span: () => secondsShown, sync: 'overview' })
      return [{ view, names: there.map(([name]) => name) }]
    })
    fill(graphs, shown.map(({ view }) => view.element))
  }

  const draw = (state) => {
    if (shown.length === 0) make(state)
    shown.forEach(({ view, names }) => view.set(state.columns(names, secondsShown)))
    const dead = state.last('queued_dead')
    numbers.set(
      {
        connections: count(state.last('connections')),
        sessions: count(state.last('sessions')),
        in: perSecond(state.last('messages_in_per_sec')),
        out: perSecond(state.last('messages_out_per_sec')),
        ready: count(state.last('queued_ready')),
        flight: count(state.last('queued_in_flight')),
        dead: count(dead),
        cpu: percent(state.last('cpu_percent')),
        memory: bytes(state.last('resident_bytes')),
      },
      { dead: dead > 0 ? 'bad' : '' },
    )
  }
  const state = live(signal, draw)
  theme.watch(signal, () => shown.forEach(({ view }) => view.redraw()))
  signal.addEventListener('abort', () => shown.forEach(({ view }) => view.destroy()))

  const refresh = async () => {
    const status = await get(['status'], {}, signal)
    fill(warnings, warningsOf(status).map((text) => h('li', {}, text)))
    warnings.hidden = warnings.childElementCount === 0
    about.set([
      ['Version', status.version],
      ['Running for', secs(status.uptime_secs)],
      ['Subscriptions', count(status.subscriptions)],
      ['Queues', count(typeof status.queues === 'number' ? status.queues : status.queues?.total)],
      ['Retained messages', `${count(status.retained.messages)} (${bytes(status.retained.bytes)})`],
      ['Memory', `${bytes(status.memory.resident_bytes)} of ${status.memory.ceiling_bytes ? bytes(status.memory.ceiling_bytes) : 'any amount'}`],
      ['Stored', status.store.is_on ? bytes(status.store.bytes) : 'nothing: it keeps nothing'],
      ['Ready for clients', yesNo(status.ready)],
    ])
    listeners.update(status.listeners)
    dropped.update(Object.entries(status.counts).filter(([name, number]) => number > 0 && /^(dropped|refused|lost|reads_delayed|writes_delayed)_/.test(name)))
    wrong.set(null)
  }
  repeat(3000, signal, refresh, (error) => wrong.set(error))

  return h(
    'div',
    { className: 'page' },
    pageHead(title, { actions: choice }),
    warnings,
    wrong.element,
    numbers.element,
    graphs,
    h(
      'div',
      { className: 'halves' },
      panel({ heading: 'This broker' }, about.element),
      h('div', {}, panel({ heading: 'Listeners' }, listeners.element), panel({ heading: 'Dropped and refused' }, dropped.element)),
    ),
  )
}

// What somebody should look at, as sentences.
function warningsOf(status) {
  const all = (status.reasons ?? []).map((reason) => `Not ready for clients: ${reason}.`)
  if (status.store.failure) all.push(`Nothing can be stored: ${status.store.failure}.`)
  for (const { address, certificate_days_left: days } of status.listeners) {
    if (days !== null && days < DAYS_SHORT) all.push(`The certificate of ${address} is valid for ${some(days, 'more day', 'more days')}.`)
  }
  if (!status.store.is_on) all.push('This broker keeps nothing: what it has is gone when it stops.')
  return all
}

