// One queue: what is in it, who works on it, its dead letters, and what can be done with it.

import { get, may, patch, post, remove } from '../lib/api.js'
import { graph } from '../lib/chart.js'
import * as clock from '../lib/clock.js'
import { fill, h, repeat } from '../lib/dom.js'
import { ago, bytes, count, instant, moment, NOTHING, perSecond, secs, some, span, value } from '../lib/format.js'
import * as route from '../lib/route.js'
import { ask, attempt, badge, button, field, link, pageHead, panel, payloadView, sentence, show as showDialog, table, tiles, toast, trouble } from '../lib/ui.js'
import * as theme from '../lib/theme.js'
import { settingOf } from './queue_settings.js'

export const title = 'Queue'
export const titleOf = ([name]) => name

const SHOWN_MAX = 50
const PAYLOAD_BYTES_MAX = 4096
// So many rows does a graph have that begins with the page.
const ROWS_MAX = 4000

export async function show({ parts: [name] }, signal) {
  const first = await get(['queues', name], {}, signal)
  const isDead = name.startsWith('$dead/')
  const wrong = trouble()

  const numbers = tiles([
    ['ready', 'Ready'],
    ['flight', 'In flight'],
    ['delayed', 'Delayed'],
    ...(isDead ? [] : [['dead', 'Dead letters']]),
    ['oldest', 'Oldest ready'],
    ['members', 'Members'],
    ['in', 'In'],
    ['done', 'Done'],
    ['bytes', 'Bytes'],
  ])

  // ---- over time

  const depth = graph({ heading: 'Depth', span: () => 3600, series: [{ key: 'ready', label: 'ready', format: count }, { key: 'flight', label: 'in flight', format: count }] })
  const age = graph({ heading: 'Age of the oldest', span: () => 3600, series: [{ key: 'age', label: 'waits for', format: secs }] })
  let rows = []
  const draw = () => {
    const at = rows.map(([at]) => at)
    depth.set([at, rows.map(([, ready]) => ready), rows.map(([, , flight]) => flight)])
    age.set([at, rows.map(([, , , oldest]) => oldest)])
  }
  const history = await get(['queues', name, 'history'], {}, signal)
  rows = history.rows
  theme.watch(signal, () => [depth, age].forEach((graph) => graph.redraw()))
  signal.addEventListener('abort', () => [depth, age].forEach((graph) => graph.destroy()))

  // ---- members

  const members = table({
    caption: 'Members',
    key: ({ client }) => client,
    empty: isDead ? 'Nobody takes part: dead letters wait for a person.' : 'Nobody takes part: jobs wait.',
    columns: [
      { head: 'Client', node: ({ client }) => link(client, 'clients', client), kind: 'name' },
      { head: 'State', text: ({ connected, resting_ms: rest }) => (!connected ? 'away' : rest === null ? 'connected' : `busy for ${span(rest)}`) },
      { head: 'In flight', text: ({ in_flight: flight, prefetch }) => `${count(flight)} of ${count(prefetch)}`, kind: 'number' },
      { head: 'Oldest', text: ({ oldest_ms: oldest }) => (oldest === null ? NOTHING : span(oldest)), kind: 'number' },
      { head: 'Takes', text: ({ latency_ms: latency }) => (latency === null ? NOTHING : span(latency)), kind: 'number' },
      { head: 'QoS', text: ({ qos }) => qos, kind: 'number wide' },
    ],
  })

  // ---- settings

  let given = {}
  const settings = table({
    caption: 'Settings',
    key: ([key]) => key,
    columns: [
      { head: 'Key', text: ([key]) => key, kind: 'code' },
      { head: 'Value', text: ([, what]) => value(what), kind: 'code break' },
      { head: 'From', text: ([, , from]) => from },
    ],
  })
  const change = () => {
    const what = field({ name: 'what', label: 'Value', hint: 'Empty: as the configuration has it. Lists as JSON: ["orders/#"].' })
    const now = (key) => (what.querySelector('input').value = last.settings[key] === '' ? '' : value(last.settings[key]))
    const keys = Object.keys(last.settings).sort()
    const key = field({ name: 'key', label: 'Key', type: 'select', options: keys, on: { change: ({ target }) => now(target.value) } })
    now(keys[0])
    return ask({
      heading: 'Change a setting',
      text: 'It holds at once, for this queue alone, and outlives the broker.',
      fields: [key, what],
      submit: 'Change',
      act: async ({ key, what }) => {
        await patch(['queues', name], { settings: { [key]: settingOf(what) } })
        toast(`${key} was changed.`)
        refresh()
      },
    })
  }

  // ---- what is kept up to date

  let last = first
  const marks = h('span', {})
  const pauser = button('', () => pauseOrResume())
  const update = (shown) => {
    last = shown
    given = shown.given
    numbers.set(
      {
        ready: count(shown.ready),
        flight: count(shown.in_flight),
        delayed: count(shown.delayed),
        ...(isDead ? {} : { dead: count(shown.dead) }),
        oldest: shown.oldest_ms === null ? NOTHING : span(shown.oldest_ms),
        members: count(shown.members),
        in: perSecond(shown.enqueued_per_sec),
        done: perSecond(shown.done_per_sec),
        bytes: bytes(shown.bytes),
      },
      isDead ? {} : { dead: shown.dead > 0 ? 'bad' : '' },
    )
    members.update(shown.member_list)
    const from = (key) => (key in given ? 'set while it ran' : key in shown.differing ? 'its [[queue]]' : 'as all queues')
    settings.update(Object.entries(shown.settings).map(([key, what]) => [key, what, from(key)]))
    const moving = shown.moving.map(({ to, rate, left }) => badge(`${count(left)} go to ${to}, ${count(rate)}/s`, 'warn'))
    const texts = [shown.paused && badge('paused', 'warn'), shown.set_aside > 0 && badge(`${count(shown.set_aside)} dead letters set aside`, 'bad'), ...moving]
    fill(marks, texts)
    pauser.textContent = shown.paused ? 'Resume' : 'Pause…'
    // A clock that was set back is no time that goes back.
    rows.push([Math.max(clock.now(), (rows.at(-1)?.[0] ?? 0) + 1), shown.ready, shown.in_flight, Math.floor((shown.oldest_ms ?? 0) / 1000)])
    if (rows.length > ROWS_MAX) rows.shift()
    draw()
  }
  const refresh = repeat(
    1500,
    signal,
    async () => {
      update(await get(['queues', name], {}, signal))
      wrong.set(null)
    },
    (error) => wrong.set(error),
  )

  // ---- what can be done

  const pauseOrResume = async () => {
    if (last.paused) {
      await attempt(() => post(['queues', name, 'resume']), `${name} goes on.`)
      return refresh()
    }
    return ask({
      heading: `Pause ${name}?`,
      text: 'Its members get nothing more until it is resumed. What they have they can still acknowledge, and what is put in waits.',
      submit: 'Pause',
      act: async () => {
        await post(['queues', name, 'pause'])
        toast(`${name} is paused.`)
        refresh()
      },
    })
  }

  const purge = () =>
    ask({
      heading: `Purge ${name}?`,
      text: 'Its messages are done away with, and cannot be had back. What members have in their hands stays.',
      fields: [field({ name: 'count', label: 'How many', type: 'number', min: 1, placeholder: 'all that are there', hint: 'The next ones first.' })],
      submit: 'Purge',
      kind: 'danger',
      act: async ({ count: most }, tell) => {
        const gone = await inPages(most, (count) => post(['queues', name, 'purge'], { count }), ({ purged }) => purged, tell)
        toast(`${some(gone, 'message was', 'messages were')} done away with.`)
        refresh()
        messages.refresh()
      },
    })

  // Moves, or redrives, what was chosen; `what` of `to`, `count`, `ids`, `rate`.
  const carry = async (verb, { to, how, count: most, rate }, ids, tell) => {
    const where = to ? { to } : {}
    if (how === 'rate') {
      const { left } = await post(['queues', name, verb], { ...where, rate, ...(most === null ? {} : { count: most }) })
      toast(left > 0 ? `${some(left, 'message')} will be moved, ${count(rate)} a second.` : 'There was nothing to be moved.')
    } else if (how === 'chosen') {
      const { moved, not_found: missing } = await post(['queues', name, verb], { ...where, ids })
      toast(`${some(moved, 'message was', 'messages were')} moved${missing.length > 0 ? `; ${count(missing.length)} were not there any more` : ''}.`)
    } else {
      const moved = await inPages(most, (count) => post(['queues', name, verb], { ...where, count }), ({ moved }) => moved, tell)
      toast(`${some(moved, 'message was', 'messages were')} moved.`)
    }
    refresh()
    dead?.refresh()
    messages.refresh()
  }
  const carryFields = (chosen) => [
    field({
      name: 'how',
      label: 'Which',
      type: 'select',
      value: chosen.length > 0 ? 'chosen' : 'all',
      options: [...(chosen.length > 0 ? [['chosen', `Those that are chosen (${chosen.length})`]] : []), ['all', 'All, at once'], ['rate', 'All, at a rate']],
    }),
    field({ name: 'count', label: 'So many at most', type: 'number', min: 1, placeholder: 'all that are there' }),
    field({ name: 'rate', label: 'Messages a second', type: 'number', min: 0, max: 1000000, value: 10, hint: 'Where they go at a rate. 0: no more of them.' }),
  ]

  const move = (chosen = []) =>
    ask({
      heading: `Move messages of ${name}`,
      text: 'Each is in one of the two queues at any moment. What members have in their hands stays.',
      fields: [field({ name: 'to', label: 'To the queue', required: true }), carryFields(chosen)],
      submit: 'Move',
      act: (values, tell) => carry('move', values, chosen, tell),
    })

  const redrive = (chosen = []) =>
    ask({
      heading: `Redrive dead letters of ${name.replace('$dead/', '')}`,
      text: 'They are put into the queue again, as if they had never failed.',
      fields: [field({ name: 'to', label: 'To the queue', placeholder: 'the one that they come from' }), carryFields(chosen)],
      submit: 'Redrive',
      act: (values, tell) => carry('redrive', values, chosen, tell),
    })

  const away = () =>
    ask({
      heading: `Delete ${name}?`,
      text: `It has ${some(last.ready + last.in_flight + last.delayed, 'message')} and ${some(last.members, 'member')}. What is deleted cannot be had back.`,
      fields: [field({ name: 'force', label: 'With all that it holds, and though it has members', type: 'check' })],
      submit: 'Delete',
      kind: 'danger',
      act: async ({ force }) => {
        await remove(['queues', name], force ? { force } : {})
        toast(`${name} was deleted.`)
        route.go('queues')
      },
    })

  // ---- its messages

  const messages = messageList({ name, heading: 'Messages', note: 'The first ones, which stay where they are.', signal, withFlight: true, actions: (chosen) => [button('Move…', () => move(chosen()))] })
  const dead = isDead
    ? null
    : messageList({
        name: `$dead/${name}`,
        heading: 'Dead letters',
        note: 'What was given up, and why.',
        signal,
        isDead: true,
        // The queue of dead letters is made with the first of them.
        isThere: () => last.dead > 0,
        actions: (chosen) => [button('Redrive…', () => redrive(chosen()), { kind: 'main' })],
      })
  if (isDead) messages.setDead()

  const events = panel({ heading: 'Events', note: 'What happened last.' }, eventList(name, signal))
  const isOperator = may('operator')
  const actions = isOperator && [
    pauser,
    isDead ? button('Redrive…', () => redrive()) : null,
    button('Move…', () => move()),
    button('Purge…', purge, { kind: 'danger' }),
    button('Delete…', away, { kind: 'danger' }),
  ]
  update(first)
  return h(
    'div',
    { className: 'page' },
    pageHead(name, { back: link('Queues', 'queues'), marks, actions }),
    wrong.element,
    numbers.element,
    h('div', { className: 'graphs' }, depth.element, age.element),
    isOperator && dead?.element,
    !isOperator && first.dead > 0 && h('p', { className: 'note' }, link('Its dead letters', 'queues', `$dead/${name}`)),
    h('div', { className: 'halves' }, panel({ heading: 'Members' }, members.element), events),
    isOperator && messages.element,
    panel({ heading: 'Settings', actions: isOperator && button('Change…', change) }, settings.element),
  )
}

// Asks again and again, as a request does so many at most; how many it were in all.
async function inPages(most, act, doneOf, tell) {
  let all = 0
  for (;;) {
    const wanted = Math.min(1000, most === null ? 1000 : most - all)
    if (wanted <= 0) return all
    const answer = await act(wanted)
    const done = doneOf(answer)
    all += done
    if (done === 0 || answer.left === 0) return all
    tell(`${count(all)} so far, ${count(answer.left)} left.`)
  }
}

// What a message says of its death, or of anything.
function property(message, name) {
  return (message.user_properties ?? []).findLast(([key]) => key === name)?.[1]
}

// The first messages of a queue, of which some can be chosen.
function messageList({ name, heading, note, signal, isDead = false, withFlight = false, isThere = () => true, actions }) {
  const chosen = new Set()
  const wrong = trouble()
  let inFlight = false
  let deadColumns = isDead
  const place = h('div', {})
  let shown

  const make = () => {
    shown = table({
      caption: heading,
      key: ({ id }) => id,
      empty: deadColumns ? 'There are no dead letters.' : 'There is no message that waits.',
      columns: [
        {
          head: 'Choose',
          hiddenHead: true,
          kind: 'tight',
          node: ({ id }) => h('input', { type: 'checkbox', 'aria-label': `Choose message ${id}`, on: { change: ({ target }) => (target.checked ? chosen.add(id) : chosen.delete(id)) } }),
        },
        { head: 'Message', node: (message) => button(message.id, () => showMessage(name, message), { kind: 'link code' }) },
        ...(deadColumns
          ? [
              { head: 'Reason', text: (message) => property(message, 'dead-reason') ?? NOTHING, kind: 'bad' },
              { head: 'Said', text: (message) => property(message, 'dead-said') ?? '', kind: 'break' },
              { head: 'Deliveries', text: (message) => property(message, 'dead-deliveries') ?? NOTHING, kind: 'number' },
              { head: 'Died', text: (message) => moment(Number(property(message, 'dead-at'))), kind: 'wide' },
            ]
          : [
              { head: 'State', text: ({ state, client }) => (client ? `${state.replace('-', ' ')}: ${client}` : state) },
              { head: 'Deliveries', text: ({ deliveries }) => count(deliveries), kind: 'number' },
              { head: 'Waits for', text: ({ enqueued_at_ms: at }) => ago(at).replace(' ago', ''), kind: 'wide' },
              { head: 'Priority', text: ({ priority }) => priority, kind: 'number wide' },
            ]),
        { head: 'Topic', text: ({ topic }) => topic, kind: 'code break wide' },
        { head: 'Payload', text: ({ payload, payload_base64: base64 }) => clip(payload ?? (base64 ? `base64: ${base64}` : '')), kind: 'code clip' },
      ],
    })
    fill(place, shown.element)
  }
  make()

  const refresh = async () => {
    try {
      const query = { count: SHOWN_MAX, payload_bytes_max: PAYLOAD_BYTES_MAX, in_flight: inFlight || null }
      const { messages } = isThere() ? await get(['queues', name, 'messages'], query, signal) : { messages: [] }
      shown.update(messages)
      const there = new Set(messages.map(({ id }) => id))
      for (const id of chosen) if (!there.has(id)) chosen.delete(id)
      wrong.set(null)
    } catch (error) {
      if (error.name !== 'AbortError') wrong.set(error)
    }
  }
  const every = () => may('operator') && repeat(3000, signal, refresh)
  every()

  const flight =
    withFlight &&
    h(
      'label',
      { className: 'inline' },
      h('input', {
        type: 'checkbox',
        on: {
          change: ({ target }) => {
            inFlight = target.checked
            refresh()
          },
        },
      }),
      ' with those in flight',
    )
  return {
    element: panel({ heading, note, actions: [flight, ...actions(() => [...chosen])], className: isDead ? 'dead' : '' }, wrong.element, place),
    refresh,
    // These are dead letters, which say more of themselves.
    setDead() {
      deadColumns = true
      make()
    },
  }
}

function clip(text) {
  return text.length > 120 ? `${text.slice(0, 120)}…` : text
}

// All of a message, and what happened to it.
function showMessage(name, message) {
  const story = h('div', {}, h('p', { className: 'note' }, 'Looking what happened to it…'))
  const pairs = [
    ['State', message.client ? `${message.state}, with ${message.client}` : message.state],
    ['Topic', message.topic],
    ['Published by', message.publisher],
    ['Put in', moment(message.enqueued_at_ms)],
    ['Deliveries', count(message.deliveries)],
    ['Priority', message.priority],
    ['Group', message.group],
    ['Due', message.due_at_ms && moment(message.due_at_ms)],
    ['Expires', message.expires_at_ms && moment(message.expires_at_ms)],
  ].filter(([, text]) => text !== undefined && text !== null && text !== '')
  const properties = message.user_properties ?? []
  const text = message.payload ?? message.payload_base64 ?? ''
  const isWhole = new TextEncoder().encode(text).length >= message.payload_bytes || message.payload_base64 !== undefined
  showDialog(
    { heading: `Message ${message.id}`, wide: true },
    h('dl', { className: 'facts' }, pairs.map(([name, text]) => h('div', {}, h('dt', {}, name), h('dd', {}, String(text))))),
    properties.length > 0 && h('h3', {}, 'User properties'),
    properties.length > 0 && h('dl', { className: 'facts code' }, properties.map(([name, text]) => h('div', {}, h('dt', {}, name), h('dd', {}, text)))),
    h('h3', {}, `Payload, ${bytes(message.payload_bytes)}${message.payload_base64 === undefined ? '' : ', in base64'}`),
    payloadView(text, isWhole ? null : 'Only its beginning is shown.'),
    h('h3', {}, 'What happened to it'),
    story,
  )
  get(['queues', name, 'messages', message.id, 'trace']).then(
    ({ events }) => {
      const list = eventTable('What happened to the message')
      list.update(events)
      fill(story, list.element)
    },
    (error) => fill(story, h('p', { className: 'trouble' }, sentence(error))),
  )
}

function eventTable(caption) {
  return table({
    caption,
    key: ({ number }) => number,
    empty: 'Nothing is remembered.',
    columns: [
      { head: 'At', text: ({ at_ms: at }) => instant(at), kind: 'code' },
      { head: 'Message', text: ({ message }) => message, kind: 'code' },
      { head: 'What', text: ({ what, reason }) => (reason ? `${what}: ${reason}` : what) },
      { head: 'Client', text: ({ client }) => client ?? '' },
    ],
  })
}

// The last events, newest first, as they come.
function eventList(name, signal) {
  const list = eventTable('Events of the queue')
  let events = []
  let after = null
  const wrong = trouble()
  repeat(
    2000,
    signal,
    async () => {
      const { events: more, next } = await get(['queues', name, 'events'], { after, count: 100 }, signal)
      after = next
      events = [...more.reverse(), ...events].slice(0, 100)
      list.update(events)
      wrong.set(null)
    },
    (error) => wrong.set(error),
  )
  return h('div', { className: 'tall' }, wrong.element, list.element)
}
