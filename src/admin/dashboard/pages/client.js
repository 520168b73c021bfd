// One client, or its session while it is away: all that is known of it.

import { get, may, post, remove } from '../lib/api.js'
import { fill, h, repeat } from '../lib/dom.js'
import { byName, bytes, count, NOTHING, span, words } from '../lib/format.js'
import * as route from '../lib/route.js'
import { ask, badge, button, facts, field, link, pageHead, panel, table, tiles, toast, trouble } from '../lib/ui.js'

export const title = 'Client'
export const titleOf = ([client]) => client

// What is shown by itself, and not among the rest.
const APART = new Set([
  'client',
  'connected',
  'subscriptions',
  'messages_in',
  'messages_out',
  'in_flight_out',
  'queued',
  'queued_bytes',
  'dropped',
  'in_flight_out_list',
  'in_flight_in_list',
  'subscription_list',
])

const REASONS = [
  ['administrative-action', 'Administrative action'],
  ['not-authorized', 'Not authorized'],
  ['server-busy', 'Server busy'],
  ['quota-exceeded', 'Quota exceeded'],
  ['message-rate-too-high', 'Message rate too high'],
  ['use-another-server', 'Use another server'],
]

export async function show({ parts: [client] }, signal) {
  const wrong = trouble()
  const about = facts()
  const marks = h('span', {})
  const numbers = tiles([
    ['in', 'Messages in'],
    ['out', 'Messages out'],
    ['flight', 'In flight out'],
    ['queued', 'Queued'],
    ['bytes', 'Queued bytes'],
  ])
  const flights = table({
    caption: 'In flight',
    key: ({ way, packet_id: id }) => `${way} ${id}`,
    empty: 'Nothing waits for an answer.',
    columns: [
      { head: 'Packet id', text: ({ packet_id: id }) => id, kind: 'code' },
      { head: 'Way', text: ({ way }) => way },
      { head: 'State', text: ({ state, qos }) => `${state}, QoS ${qos}` },
      { head: 'Topic or queue', text: ({ topic, queue }) => queue ?? topic ?? NOTHING, kind: 'code break' },
      { head: 'Age', text: ({ age_ms: age }) => span(age), kind: 'number' },
    ],
  })
  const dropped = table({
    caption: 'Dropped, and why',
    key: ([reason]) => reason,
    empty: 'Nothing was dropped.',
    columns: [
      { head: 'Reason', text: ([reason]) => words(reason) },
      { head: 'Messages', text: ([, number]) => count(number), kind: 'number' },
    ],
  })

  const subscriptions = table({
    caption: 'Subscriptions',
    key: ({ filter }) => filter,
    empty: 'It subscribes to nothing.',
    columns: [
      { head: 'Filter', text: ({ filter }) => filter, kind: 'code break' },
      { head: 'QoS', text: ({ qos }) => qos, kind: 'number' },
    ],
  })

  let isConnected = false
  let isEnding = false
  const disconnect = button('Disconnect…', () =>
    ask({
      heading: `Disconnect ${client}?`,
      text: 'Its connection is closed. Its session stays as the client wants it, and it may connect again.',
      fields: [field({ name: 'reason', label: 'What it is told (MQTT 5)', type: 'select', options: REASONS })],
      submit: 'Disconnect',
      kind: 'danger',
      act: async ({ reason }) => {
        await post(['clients', client, 'disconnect'], { reason })
        toast(`${client} was disconnected.`)
        refresh()
      },
    }),
  )
  const end = button(
    'End session…',
    () =>
      ask({
        heading: `End the session of ${client}?`,
        text: 'Its subscriptions and what waits for it are gone, and it is disconnected.',
        submit: 'End session',
        kind: 'danger',
        act: async () => {
          isEnding = true
          await remove(['sessions', client]).finally(() => (isEnding = false))
          toast(`The session of ${client} has ended.`)
          route.go('clients')
        },
      }),
    { kind: 'danger' },
  )

  // A client that is away is a session still; of one that is connected there is more to tell.
  const load = async () => {
    const session = await get(['sessions', client], {}, signal)
    return session.connected ? { ...session, ...(await get(['clients', client], {}, signal)) } : session
  }
  const update = (shown) => {
    isConnected = shown.connected
    fill(marks, badge(isConnected ? 'connected' : 'away', isConnected ? 'good' : 'warn'))
    disconnect.disabled = !isConnected
    numbers.set({
      in: count(shown.messages_in),
      out: count(shown.messages_out),
      flight: count(shown.in_flight_out),
      queued: count(shown.queued),
      bytes: bytes(shown.queued_bytes),
    })
    about.set(Object.entries(shown).filter(([name]) => !APART.has(name)).map(([name, what]) => [words(name), byName(name, what)]))
    dropped.update(Object.entries(shown.dropped ?? {}).filter(([, number]) => number > 0))
    subscriptions.update(shown.subscription_list)
    const of = (way) => shown[`in_flight_${way}_list`].map((one) => ({ ...one, way }))
    flights.update([...of('out'), ...of('in')])
  }
  const refresh = repeat(
    2000,
    signal,
    async () => {
      if (isEnding) return
      update(await load())
      wrong.set(null)
    },
    (error) => wrong.set(error),
  )
  update(await load())

  return h(
    'div',
    { className: 'page' },
    pageHead(client || '(empty)', { back: link('Clients', 'clients'), marks, actions: may('operator') && [disconnect, end] }),
    wrong.element,
    numbers.element,
    h(
      'div',
      { className: 'halves' },
      panel({ heading: 'About' }, about.element),
      h('div', {}, panel({ heading: 'Subscriptions' }, subscriptions.element), panel({ heading: 'In flight' }, flights.element), panel({ heading: 'Dropped' }, dropped.element)),
    ),
  )
}
