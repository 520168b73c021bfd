// Who is connected, whose session is kept, and who subscribes to what.

import { h } from '../lib/dom.js'
import { ago, bytes, count, NOTHING, yesNo } from '../lib/format.js'
import * as route from '../lib/route.js'
import { link, listing, pageHead } from '../lib/ui.js'

export const title = 'Clients'

const VIEWS = {
  clients: ['Connected', connected],
  sessions: ['Sessions', sessions],
  subscriptions: ['Subscriptions', subscriptions],
}

export function show(at, signal) {
  const view = VIEWS[at.query.get('view')] ? at.query.get('view') : 'clients'
  const place = h('div', {})
  const tabs = h(
    'ul',
    { className: 'views', 'aria-label': 'What is listed' },
    Object.entries(VIEWS).map(([name, [label]]) => h('li', {}, h('a', { href: `${route.to('clients')}?view=${name}`, 'aria-current': name === view ? 'true' : null }, label))),
  )
  place.append(VIEWS[view][1](signal).element)
  return h('div', { className: 'page' }, pageHead(title), tabs, place)
}

const name = { head: 'Client', node: ({ client }) => link(client || '(empty)', 'clients', client), kind: 'name' }
// Of a queue or share group without a member, nobody.
const subscriber = { ...name, node: ({ client }) => (client === null ? 'nobody' : name.node({ client })) }
const user = { head: 'User', text: ({ user }) => user ?? NOTHING, kind: 'wide' }
const waiting = [
  { head: 'Subscriptions', text: ({ subscriptions }) => count(subscriptions), kind: 'number' },
  { head: 'In flight out', text: ({ in_flight_out: flight }) => count(flight), kind: 'number wide' },
  { head: 'Queued', text: ({ queued }) => count(queued), kind: 'number' },
  { head: 'Queued bytes', text: ({ queued_bytes: queued }) => bytes(queued), kind: 'number wide' },
]

function connected(signal) {
  return listing({
    parts: ['clients'],
    signal,
    caption: 'Connected clients',
    empty: 'No such client is connected.',
    filters: [
      { name: 'client', label: 'Client', placeholder: 'part of it, or sensor-*' },
      { name: 'user', label: 'User' },
      { name: 'address', label: 'Address' },
    ],
    key: ({ client }) => client,
    columns: [
      name,
      user,
      { head: 'Address', text: ({ address }) => address ?? NOTHING, kind: 'code' },
      { head: 'MQTT', text: ({ version }) => version, kind: 'wide' },
      { head: 'Connected', text: ({ since_ms: since }) => ago(since), kind: 'wide' },
      ...waiting,
    ],
  })
}

function sessions(signal) {
  return listing({
    parts: ['sessions'],
    signal,
    caption: 'Sessions',
    empty: 'There is no such session.',
    filters: [
      { name: 'client', label: 'Client', placeholder: 'part of it, or sensor-*' },
      {
        name: 'connected',
        label: 'Connected',
        options: [
          ['', 'all'],
          ['true', 'connected'],
          ['false', 'away'],
        ],
      },
    ],
    key: ({ client }) => client,
    columns: [name, user, { head: 'Connected', text: ({ connected }) => yesNo(connected) }, ...waiting],
  })
}

function subscriptions(signal) {
  return listing({
    parts: ['subscriptions'],
    signal,
    caption: 'Subscriptions',
    empty: 'Nobody subscribes to such.',
    filters: [
      { name: 'client', label: 'Client' },
      { name: 'filter', label: 'Filter', placeholder: 'part of it' },
      { name: 'topic', label: 'That match the topic', placeholder: 'room/1/temperature' },
    ],
    key: ({ client, filter, matched }) => `${client} ${filter} ${matched}`,
    columns: [
      subscriber,
      { head: 'Filter', text: ({ filter }) => filter, kind: 'code break' },
      { head: 'Matches by', text: ({ matched }) => matched ?? '', kind: 'code break wide' },
      { head: 'Kind', text: ({ kind }) => ({ filter: 'subscription', share: 'share group', queue: 'queue' })[kind] ?? kind, kind: 'wide' },
      { head: 'QoS', text: ({ qos }) => qos, kind: 'number' },
    ],
  })
}
