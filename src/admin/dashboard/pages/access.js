// Who may do what, and who is kept out.

import { get, may, post, remove } from '../lib/api.js'
import { fill, h, repeat } from '../lib/dom.js'
import { byName, moment, words } from '../lib/format.js'
import { ask, attempt, badge, button, facts, field, form, listing, pageHead, panel, toast, trouble } from '../lib/ui.js'

export const title = 'Access'

export function show(_, signal) {
  return h('div', { className: 'page' }, pageHead(title), h('div', { className: 'halves' }, h('div', {}, rules(signal), explain()), h('div', {}, bans(signal), users(signal))))
}

function rules(signal) {
  const about = facts()
  const wrong = trouble()
  repeat(
    10000,
    signal,
    async () => {
      const access = await get(['access'], {}, signal)
      about.set(Object.entries(access).map(([name, what]) => [name === 'is_on' ? 'Rules are asked' : words(name), byName(name, what)]))
      wrong.set(null)
    },
    (error) => wrong.set(error),
  )
  return panel({ heading: 'Rules' }, wrong.element, about.element)
}

// Asks the rules as they would be asked for a client.
function explain() {
  const answer = h('div', { role: 'status' })
  return panel(
    { heading: 'Who may?', note: 'Asks the rules in force, and says which line decides.' },
    form({
      fields: [
        h(
          'div',
          { className: 'columns' },
          field({ name: 'user', label: 'User', hint: 'Empty: nobody that is known.' }),
          field({ name: 'client', label: 'Client identifier', required: true }),
          field({
            name: 'action',
            label: 'May it',
            type: 'select',
            options: [
              ['publish', 'publish to'],
              ['subscribe', 'subscribe to'],
              ['read', 'get what is published to'],
              ['put', 'put into the queue'],
              ['join', 'join the queue'],
              ['create', 'make the queue'],
              ['steer', 'steer the queue'],
            ],
          }),
          field({ name: 'topic', label: 'Topic, filter or queue', required: true }),
          field({ name: 'qos', label: 'QoS', type: 'select', options: ['0', '1', '2'] }),
        ),
        field({ name: 'retain', label: 'Retained', type: 'check' }),
      ],
      submit: 'Ask',
      act: async ({ user, client, action, topic, qos, retain }) => {
        const query = { user, client, action, topic, qos, retain: retain || null }
        const said = await get(['access', 'explain'], query)
        fill(answer, h('p', {}, badge(said.allowed ? 'allowed' : 'denied', said.allowed ? 'good' : 'bad')), h('ul', { className: 'because' }, said.because.map((one) => h('li', {}, one))))
      },
    }),
    answer,
  )
}

function users(signal) {
  const list = listing({
    parts: ['access', 'users'],
    signal,
    every: 10000,
    caption: 'Users of the password file',
    empty: 'There is no password file, or nobody in it. Users may also come with certificates, tokens, or by a service.',
    key: ({ name }) => name,
    columns: [{ head: 'User', text: ({ name }) => name }],
  })
  return panel({ heading: 'Users', note: 'Of MQTT, in the password file.' }, list.element)
}

function bans(signal) {
  const kindOf = (ban) => (ban.address === undefined ? 'client' : 'address')
  const isAdmin = may('admin')
  const list = listing({
    parts: ['bans'],
    signal,
    caption: 'Who is banned',
    empty: 'Nobody is banned.',
    key: (ban) => `${kindOf(ban)} ${ban[kindOf(ban)]} ${ban.user} ${ban.keeps_from}`,
    columns: [
      { head: 'Who', text: (ban) => `${kindOf(ban)} ${ban[kindOf(ban)]}`, kind: 'code break' },
      { head: 'Why', text: ({ reason }) => ({ failures: 'too many failures', connects: 'connected too often', request: 'asked for' })[reason] ?? reason },
      { head: 'Keeps from', text: ({ keeps_from: from }) => from.map((what) => ({ mqtt: 'MQTT', http: 'logging in here' })[what] ?? what).join(', ') },
      { head: 'Until', text: ({ until_ms: until }) => moment(until) },
      ...(isAdmin
        ? [
            {
              head: 'Lift',
              hiddenHead: true,
              node: (ban) =>
                button('Lift', async () => {
                  await attempt(() => remove(['bans', kindOf(ban), ban[kindOf(ban)]]), 'The ban is lifted.')
                  list.refresh()
                }),
            },
          ]
        : []),
    ],
  })
  const add = button('Ban…', () =>
    ask({
      heading: 'Ban an address or a client',
      text: 'It is refused before it is asked who it is. Connections that are open stay.',
      fields: [
        field({
          name: 'kind',
          label: 'What',
          type: 'select',
          options: [
            ['address', 'an IP address'],
            ['client', 'a client identifier'],
          ],
        }),
        field({ name: 'who', label: 'Which', required: true }),
        field({ name: 'seconds', label: 'For so many seconds', type: 'number', min: 1, value: 3600, required: true }),
      ],
      submit: 'Ban',
      kind: 'danger',
      act: async ({ kind, who, seconds }) => {
        await post(['bans'], { [kind]: who, seconds })
        toast(`${who} is banned.`)
        list.refresh()
      },
    }),
  )
  return panel({ heading: 'Bans', actions: isAdmin && add }, list.element)
}
