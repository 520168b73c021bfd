// Topics as messages come by, as a tree, and what is retained.

import { get, may, remove } from '../lib/api.js'
import { fill, h, repeat, setText } from '../lib/dom.js'
import { bytes, count, moment, NOTHING, payloadText, some } from '../lib/format.js'
import { connectForm } from '../lib/mqtt.js'
import * as route from '../lib/route.js'
import { ask, badge, button, field, listing, pageHead, panel, payloadView, sentence, show as showDialog, toast } from '../lib/ui.js'

export const title = 'Topics'

// The tree grows no further than this; of a node so many children are shown at once.
const NODES_MAX = 5000
const CHILDREN_SHOWN = 200
// Of a payload, so many bytes are kept.
const PAYLOAD_KEPT = 1024
// How often what came is shown.
const SHOWN_EVERY = 400

export function show(at, signal) {
  const view = at.query.get('view') === 'retained' ? 'retained' : 'live'
  const tabs = h(
    'ul',
    { className: 'views', 'aria-label': 'What is shown' },
    [
      ['live', 'As they come'],
      ['retained', 'Retained messages'],
    ].map(([name, label]) => h('li', {}, h('a', { href: `${route.to('topics')}?view=${name}`, 'aria-current': name === view ? 'true' : null }, label))),
  )
  return h('div', { className: 'page' }, pageHead(title), tabs, view === 'live' ? live(signal) : retained(signal))
}

// ---- as they come

function live(signal) {
  const place = h('div', {})
  let client = null
  const tree = new Tree()
  const state = h('p', { className: 'note', role: 'status' })

  const ended = (why) => {
    client = null
    setText(state, why ? `The connection has ended: ${why}.` : '')
    fill(place, connect)
  }
  const connect = panel(
    { heading: 'Connect', note: 'The tree is what a client of MQTT gets, over WebSocket at /mqtt, with the rights of that user.' },
    connectForm({
      handlers: {
        message: (topic, payload, packet) => {
          tree.add(topic, payload, packet)
          return false
        },
        closed: (why) => ended(why ?? 'the broker closed it'),
      },
      more: field({ name: 'filter', label: 'Topic filter', value: '#', required: true, hint: 'Retained messages come first.' }),
      connected: async (connected, { filter }) => {
        client = connected
        fill(place, growing())
        try {
          await client.subscribe(filter, { qos: 0 })
          setText(state, '')
        } catch (error) {
          client?.end()
          ended(error.message)
        }
      },
    }),
  )

  const growing = () => {
    const left = button('Disconnect', () => {
      client?.end()
      ended('')
    })
    const clear = button('Clear', () => tree.clear())
    return h(
      'div',
      { className: 'halves' },
      panel({ heading: 'Topics', note: tree.summary, actions: [clear, left] }, tree.element),
      panel({ heading: 'Message', className: 'chosen' }, tree.chosen),
    )
  }
  repeat(SHOWN_EVERY, signal, () => tree.draw())
  signal.addEventListener('abort', () => client?.end())
  fill(place, connect)
  return h('div', {}, state, place)
}

// Topics by their levels. What comes is noted at once, and shown now and then.
class Tree {
  constructor() {
    this.element = h('ul', { className: 'tree', 'aria-label': 'Topics' })
    this.chosen = h('div', {})
    this.summary = h('span', {}, 'Nothing has come yet.')
    this.clear()
  }

  node(name, topic) {
    return { name, topic, children: new Map(), count: 0, below: 0, isChanged: false, shown: CHILDREN_SHOWN, payload: null }
  }

  clear() {
    this.root = this.node('', '')
    this.nodes = 0
    this.left = 0
    this.one = null
    fill(this.element)
    this.root.list = this.element
    fill(this.chosen, h('p', { className: 'empty' }, 'Choose a topic.'))
    setText(this.summary, 'Nothing has come yet.')
  }

  add(topic, payload, packet) {
    const path = [this.root]
    for (const name of topic.split('/')) {
      const parent = path.at(-1)
      let child = parent.children.get(name)
      if (!child) {
        if (this.nodes >= NODES_MAX) {
          this.left += 1
          return
        }
        child = this.node(name, parent === this.root ? name : `${parent.topic}/${name}`)
        parent.children.set(name, child)
        this.nodes += 1
      }
      path.push(child)
    }
    for (const node of path) {
      node.below += 1
      node.isChanged = true
    }
    const node = path.at(-1)
    node.count += 1
    node.at = Date.now()
    node.length = payload.length
    node.payload = payload.slice(0, PAYLOAD_KEPT)
    node.qos = packet.qos
    // Only what was retained before we came says so; it stays what is retained until another is.
    if (packet.retain) node.isRetained = true
  }

  draw() {
    if (!this.root.isChanged) return
    this.drawChildren(this.root)
    this.root.isChanged = false
    const left = this.left > 0 ? `; ${some(this.left, 'message')} to further topics came when the tree was full` : ''
    setText(this.summary, `${some(this.root.below, 'message')}, ${some(this.nodes, 'level')}${left}.`)
    if (this.one?.drawn !== this.one?.count) this.choose(this.one)
  }

  // Only what is open is made, so that a wide tree costs what is seen of it.
  drawChildren(node) {
    const names = [...node.children.keys()].sort()
    names.slice(0, node.shown).forEach((name, at) => {
      const child = node.children.get(name)
      if (!child.element) this.make(child)
      if (node.list.children[at] !== child.element) node.list.insertBefore(child.element, node.list.children[at] ?? null)
      if (child.isChanged) this.drawNode(child)
    })
    const more = names.length - node.shown
    node.more?.remove()
    if (more > 0) {
      node.more = h(
        'li',
        {},
        button(`${count(more)} more`, () => {
          node.shown += CHILDREN_SHOWN
          this.drawChildren(node)
        }),
      )
      node.list.append(node.more)
    }
  }

  make(node) {
    node.numbers = h('span', { className: 'numbers' })
    node.value = h('span', { className: 'value' })
    node.line = h('button', { type: 'button', className: 'topic', on: { click: () => this.choose(node) } }, node.name === '' ? '(empty)' : node.name)
    node.list = h('ul', {})
    const toggle = (isOpen) => {
      node.isOpen = isOpen
      node.opener.textContent = isOpen ? '▾' : '▸'
      node.opener.setAttribute('aria-expanded', isOpen)
      node.list.hidden = !isOpen
      if (isOpen) this.drawChildren(node)
    }
    node.opener = h('button', { type: 'button', className: 'opener', 'aria-label': `Below ${node.topic}`, on: { click: () => toggle(!node.isOpen) } }, '▸')
    node.toggle = toggle
    node.element = h('li', {}, h('div', { className: 'line' }, node.opener, node.line, node.numbers, node.value), node.list)
    // The first levels are open, as long as they are not many.
    const depth = node.topic.split('/').length
    toggle(depth <= 2 && this.nodes < 200)
  }

  drawNode(node) {
    node.isChanged = false
    const hasChildren = node.children.size > 0
    node.opener.classList.toggle('unseen', !hasChildren)
    node.opener.disabled = !hasChildren
    setText(node.numbers, `${count(node.below)}${node.isRetained ? ' · retained' : ''}`)
    setText(node.value, node.payload ? payloadText(node.payload).slice(0, 80) : '')
    if (node.isOpen) this.drawChildren(node)
  }

  choose(node) {
    if (!node) return
    this.one?.line?.removeAttribute('aria-pressed')
    this.one = node
    node.drawn = node.count
    node.line?.setAttribute('aria-pressed', 'true')
    const clear =
      may('operator') &&
      node.isRetained &&
      button('Delete the retained message…', () => deleteRetained(node.topic, () => (node.isRetained = false)), { kind: 'danger' })
    fill(
      this.chosen,
      h('p', { className: 'code break' }, node.topic, ' ', node.isRetained && badge('retained')),
      node.payload
        ? [
            h('p', { className: 'note' }, `${some(node.count, 'message')}; the last at ${moment(node.at)}, QoS ${node.qos}, ${bytes(node.length)}.`),
            payloadView(payloadText(node.payload), node.length > PAYLOAD_KEPT ? 'Only its beginning is shown.' : null),
          ]
        : h('p', { className: 'note' }, `No message came to this topic, and ${count(node.below)} to topics below it.`),
      h('div', { className: 'actions' }, clear),
    )
  }
}

// ---- retained messages

function deleteRetained(topic, done) {
  return ask({
    heading: 'Delete the retained message?',
    text: `Whoever subscribes to ${topic} from now on does not get it.`,
    submit: 'Delete',
    kind: 'danger',
    act: async () => {
      await remove(['retained', topic])
      toast(`What was retained of ${topic} is deleted.`)
      done()
    },
  })
}

function retained(signal) {
  const filterSaid = () => route.current().query.get('filter') ?? ''
  const list = listing({
    parts: ['retained'],
    signal,
    every: 5000,
    caption: 'Retained messages, by topic',
    empty: 'Nothing is retained there.',
    filters: [{ name: 'filter', label: 'Topic filter', placeholder: 'room/+/temperature' }],
    key: ({ topic }) => topic,
    columns: [
      { head: 'Topic', node: ({ topic }) => button(topic, () => view(topic), { kind: 'link code' }), kind: 'name' },
      { head: 'Bytes', text: ({ payload_bytes: length }) => bytes(length), kind: 'number' },
      { head: 'QoS', text: ({ qos }) => qos, kind: 'number' },
      { head: 'Publisher', text: ({ publisher }) => publisher ?? NOTHING, kind: 'wide' },
      { head: 'Stored', text: ({ stored_at_ms: at }) => moment(at) },
      { head: 'Expires', text: ({ expires_at_ms: at }) => moment(at ?? undefined), kind: 'wide' },
    ],
  })

  const view = async (topic) => {
    const found = await get(['retained', topic], may('operator') ? { payload_bytes_max: 65536 } : {}, signal).catch((error) => toast(sentence(error), 'bad'))
    if (!found) return
    const text = found.payload ?? found.payload_base64
    const dialog = showDialog(
      { heading: 'Retained message', wide: true },
      h('p', { className: 'code break' }, topic),
      h('p', { className: 'note' }, `${bytes(found.payload_bytes)}, QoS ${found.qos}, stored ${moment(found.stored_at_ms)}${found.payload_base64 ? ', shown in base64' : ''}.`),
      text === undefined || text === null ? h('p', { className: 'note' }, may('operator') ? 'It is empty.' : 'Payloads are for operators.') : payloadView(text),
      may('operator') &&
        button(
          'Delete…',
          () => {
            dialog.close()
            deleteRetained(topic, () => list.refresh())
          },
          { kind: 'danger' },
        ),
    )
  }
  const deleteAll = () => {
    const filter = filterSaid() || '#'
    return ask({
      heading: 'Delete retained messages?',
      text: `All that match ${filter} are deleted, and cannot be had back.`,
      submit: 'Delete',
      kind: 'danger',
      act: async (_, tell) => {
        let all = 0
        for (;;) {
          const { deleted, left } = await remove(['retained'], { filter })
          all += deleted
          if (left === 0 || deleted === 0) break
          tell(`${count(all)} so far, ${count(left)} left.`)
        }
        toast(`${some(all, 'retained message was', 'retained messages were')} deleted.`)
        list.refresh()
      },
    })
  }
  return h('div', {}, list.element, may('operator') && h('div', { className: 'actions below' }, button('Delete all that match…', deleteAll, { kind: 'danger' })))
}
