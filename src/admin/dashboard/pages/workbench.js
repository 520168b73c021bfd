// A client of MQTT in the page: publishes, subscribes, and takes turns in queues, with each job
// acknowledged or refused by hand.

import { fill, h, setText } from '../lib/dom.js'
import { bytes, count, instant, payloadText } from '../lib/format.js'
import { BUSY, connectForm, DONE, GIVE_BACK, NEVER, pairs, reason } from '../lib/mqtt.js'
import { attempt, badge, button, field, form, pageHead, panel, payloadView, show as showDialog } from '../lib/ui.js'

export const title = 'Workbench'

// What has come, and what happened: so much of it is shown.
const SHOWN_MAX = 200

// How a job can be answered: what the button says, what the queue makes of it, the reason code.
const ANSWERS = [
  ['Done', 'The job is settled (PUBACK 0x00).', DONE, 'good'],
  ['Give back', 'It failed: again after a while, for whoever has room (PUBACK 0x80).', GIVE_BACK, ''],
  ['Busy', 'Not now, not me: the next member gets it, and it counts as no failure (PUBACK 0x97).', BUSY, ''],
  ['Never', 'It cannot ever be done: it is a dead letter now (PUBACK 0x99).', NEVER, 'danger'],
]

export function show(_, signal) {
  const place = h('div', {})
  const state = h('p', { className: 'note', role: 'status' })
  let client = null

  const ended = (why) => {
    client = null
    setText(state, why)
    fill(place, connect)
  }
  const bench = new Bench(() => client)
  const connect = panel(
    {
      heading: 'Connect',
      note: 'This page is a client of MQTT 5, over WebSocket at /mqtt. It has the rights of the MQTT user that it says it is, not yours here.',
    },
    connectForm({
      handlers: {
        message: (topic, payload, packet) => bench.came(topic, payload, packet),
        closed: (why) => ended(`The connection has ended: ${why ?? 'the broker closed it'}.`),
      },
      connected: (connected, { clientId }) => {
        client = connected
        setText(state, '')
        const left = button('Disconnect', () => {
          client?.end()
          ended('Disconnected.')
        })
        bench.reset()
        fill(place, h('p', { className: 'connected' }, badge('connected', 'good'), ` as ${clientId} `, left), bench.element)
      },
    }),
  )
  signal.addEventListener('abort', () => client?.end())
  fill(place, connect)
  return h('div', { className: 'page' }, pageHead(title), state, place)
}

// What can be done while one is connected, and what came of it.
class Bench {
  constructor(client) {
    this.client = client
    this.jobs = h('ul', { className: 'jobs' })
    this.noJobs = h('p', { className: 'empty' }, 'No job is in your hands.')
    this.messages = h('ul', { className: 'messages', 'aria-label': 'Messages, the newest first' })
    this.noMessages = h('p', { className: 'empty' }, 'Nothing has come yet.')
    this.subscribed = h('ul', { className: 'subscribed', 'aria-label': 'Subscriptions' })
    this.element = h(
      'div',
      { className: 'halves bench' },
      h('div', {}, this.queueForm(), this.subscribeForm(), this.publishForm()),
      h(
        'div',
        {},
        panel({ heading: 'Jobs in your hands', note: 'They go to the next member when you leave, or when their time is over.' }, this.jobs, this.noJobs),
        panel({ heading: 'Subscriptions' }, this.subscribed),
        panel({ heading: 'Messages', actions: button('Clear', () => this.clear()) }, this.messages, this.noMessages),
      ),
    )
  }

  reset() {
    fill(this.jobs)
    fill(this.subscribed)
    this.clear()
    this.noJobs.hidden = false
  }

  clear() {
    fill(this.messages)
    this.noMessages.hidden = false
  }

  queueForm() {
    return panel(
      { heading: 'Join a queue' },
      form({
        fields: h(
          'div',
          { className: 'columns' },
          field({ name: 'queue', label: 'Queue', required: true, placeholder: 'jobs', hint: 'It is made, if there is none of that name.' }),
          field({ name: 'prefetch', label: 'Prefetch', type: 'number', min: 1, max: 1000, value: 1, hint: 'Jobs in your hands at a time.' }),
        ),
        submit: 'Join',
        act: ({ queue, prefetch }) => this.subscribe(`$queue/${queue}`, { qos: 1, userProperties: { prefetch: String(prefetch ?? 1) } }),
      }),
    )
  }

  subscribeForm() {
    return panel(
      { heading: 'Subscribe' },
      form({
        fields: h(
          'div',
          { className: 'columns' },
          field({ name: 'filter', label: 'Topic filter', required: true, placeholder: 'room/+/temperature' }),
          field({ name: 'qos', label: 'QoS', type: 'select', options: ['0', '1', '2'], value: '1' }),
        ),
        submit: 'Subscribe',
        act: ({ filter, qos }) => this.subscribe(filter, { qos: Number(qos) }),
      }),
    )
  }

  publishForm() {
    const told = h('p', { className: 'note', role: 'status' })
    return panel(
      { heading: 'Publish' },
      form({
        fields: [
          h(
            'div',
            { className: 'columns' },
            field({ name: 'topic', label: 'Topic', required: true, placeholder: 'room/1/temperature, or $queue/jobs' }),
            field({ name: 'qos', label: 'QoS', type: 'select', options: ['0', '1', '2'], value: '1' }),
          ),
          field({ name: 'payload', label: 'Payload', type: 'area' }),
          field({ name: 'retain', label: 'Retain', type: 'check' }),
          h(
            'details',
            {},
            h('summary', {}, 'More'),
            field({ name: 'properties', label: 'User properties', type: 'area', hint: 'One a line, as delay=30, priority=9 or group=a.' }),
            h(
              'div',
              { className: 'columns' },
              field({ name: 'contentType', label: 'Content type' }),
              field({ name: 'responseTopic', label: 'Response topic' }),
              field({ name: 'messageExpiryInterval', label: 'Expires after, s', type: 'number', min: 1 }),
              field({ name: 'times', label: 'How many times', type: 'number', min: 1, max: 1000, value: 1 }),
            ),
          ),
          told,
        ],
        submit: 'Publish',
        act: async (values) => {
          setText(told, await this.publish(values))
        },
      }),
    )
  }

  async publish({ topic, payload, qos, retain, properties, contentType, responseTopic, messageExpiryInterval, times }) {
    const userProperties = {}
    for (const line of properties.split('\n').filter((line) => line.trim())) {
      const at = line.indexOf('=')
      const name = (at < 0 ? line : line.slice(0, at)).trim()
      userProperties[name] = [...(userProperties[name] ?? []), at < 0 ? '' : line.slice(at + 1).trim()]
    }
    const said = { userProperties, contentType, responseTopic, messageExpiryInterval }
    const known = Object.fromEntries(Object.entries(said).filter(([, value]) => value !== '' && value !== null && !(typeof value === 'object' && Object.keys(value).length === 0)))
    let answer
    for (let number = 0; number < (times ?? 1); number += 1) {
      answer = await this.client()?.publish(topic, payload, { qos: Number(qos), retain, properties: known })
    }
    const id = pairs(answer?.properties?.userProperties).find(([name]) => name === 'message-id')?.[1]
    const how = qos === '0' ? 'Sent' : `Acknowledged: ${reason(answer?.reasonCode ?? 0)}`
    return `${how}${id ? `, message ${id}` : ''}.`
  }

  async subscribe(filter, how) {
    const qos = await this.client()?.subscribe(filter, how)
    for (const line of this.subscribed.children) if (line.dataset.filter === filter) line.remove()
    const line = h(
      'li',
      { data: { filter } },
      h('span', { className: 'code break' }, filter),
      ` QoS ${qos} `,
      button(filter.startsWith('$queue/') ? 'Leave' : 'Unsubscribe', () =>
        attempt(async () => {
          await this.client()?.unsubscribe(filter)
          line.remove()
        }),
      ),
    )
    this.subscribed.append(line)
  }

  // Whether it is held until somebody answers it.
  came(topic, payload, packet) {
    if (topic.startsWith('$queue/') && packet.qos === 1) {
      this.noJobs.hidden = true
      this.jobs.append(this.job(topic, payload, packet))
      return true
    }
    this.noMessages.hidden = true
    this.messages.prepend(this.message(topic, payload, packet))
    while (this.messages.childElementCount > SHOWN_MAX) this.messages.lastChild.remove()
    return false
  }

  job(topic, payload, packet) {
    const said = new Map(pairs(packet.properties?.userProperties))
    const delay = h('input', { type: 'number', min: 0, max: 31536000, placeholder: 's', 'aria-label': 'Give back for so many seconds' })
    const answer = (code) => {
      const secs = code === GIVE_BACK && delay.value !== '' ? { delay: delay.value } : undefined
      this.client()?.answer(packet, code, secs)
      item.remove()
      this.noJobs.hidden = this.jobs.childElementCount > 0
      const verb = ANSWERS.find(([, , known]) => known === code)[0]
      this.noMessages.hidden = true
      this.messages.prepend(h('li', {}, h('span', { className: 'at' }, instant(Date.now())), badge(verb), h('span', { className: 'code break' }, topic), h('span', { className: 'text' }, payloadText(payload).slice(0, 200))))
    }
    const delivery = said.get('delivery') ?? '1'
    const item = h(
      'li',
      {},
      h(
        'div',
        { className: 'job-head' },
        h('span', { className: 'code break' }, topic),
        badge(`delivery ${delivery}`, Number(delivery) > 1 ? 'warn' : ''),
        said.has('message-id') && h('span', { className: 'note' }, `message ${said.get('message-id')}`),
      ),
      h('pre', { tabIndex: 0, 'aria-label': 'Payload' }, payloadText(payload).slice(0, 2000)),
      h(
        'div',
        { className: 'actions' },
        ANSWERS.map(([label, title, code, kind]) => [button(label, () => answer(code), { kind, title }), code === GIVE_BACK && delay]),
      ),
    )
    return item
  }

  message(topic, payload, packet) {
    const text = payloadText(payload.slice(0, 65536))
    const view = button('Show', () => this.showMessage(topic, text, payload, packet), { 'aria-label': `Show the message to ${topic}` })
    return h(
      'li',
      {},
      h('span', { className: 'at' }, instant(Date.now())),
      packet.retain && badge('retained'),
      h('span', { className: 'code break' }, topic),
      h('span', { className: 'text' }, text.slice(0, 200)),
      view,
    )
  }

  showMessage(topic, text, payload, packet) {
    const { userProperties, ...properties } = packet.properties ?? {}
    const all = [
      ['QoS', packet.qos],
      ['Retained', packet.retain ? 'yes' : 'no'],
      ...Object.entries(properties).map(([name, value]) => [name, value instanceof Uint8Array ? payloadText(value) : String(value)]),
      ...pairs(userProperties),
    ]
    showDialog(
      { heading: 'Message', wide: true },
      h('p', { className: 'code break' }, topic),
      h('dl', { className: 'facts' }, all.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, String(value))))),
      payloadView(text, payload.length > 65536 ? `Only its beginning is shown, of ${bytes(payload.length)}.` : `${count(payload.length)} bytes.`),
    )
  }
}
