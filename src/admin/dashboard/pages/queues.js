// All queues: how much is in them, and how it was in the last hour.

import { get, may, put } from '../lib/api.js'
import { sparkline } from '../lib/chart.js'
import { h } from '../lib/dom.js'
import { count, perSecond, secs, span } from '../lib/format.js'
import * as route from '../lib/route.js'
import { ask, badge, button, field, link, listing, pageHead, toast } from '../lib/ui.js'
import { settingsFields, settingsOf } from './queue_settings.js'

export const title = 'Queues'

export function show(_, signal) {
  // Of the queues that are shown, those that the broker follows.
  let histories = new Map()
  const graphOf = (label, at, format) => ({
    head: label,
    kind: 'wide',
    node: () => sparkline(label, format),
    update: (graph, { name }) => graph.set((histories.get(name) ?? []).map((row) => row[at])),
  })

  const list = listing({
    parts: ['queues'],
    signal,
    caption: 'Queues, by name',
    empty: 'There is no queue of such a name. A queue is made when somebody subscribes to $queue/NAME or publishes to it.',
    filters: [{ name: 'name', label: 'Name', placeholder: 'part of it, or orders/*' }],
    key: ({ name }) => name,
    got: async (items, { name, after, limit }) => {
      if (items.length === 0) return
      const { items: followed } = await get(['history', 'queues'], { name, after, limit }, signal)
      histories = new Map(followed.map(({ name, rows }) => [name, rows]))
    },
    columns: [
      { head: 'Name', node: ({ name }) => link(name, 'queues', name), kind: 'name' },
      {
        head: 'State',
        node: () => h('span', {}),
        update: (mark, { paused, configured }) => {
          const text = paused ? 'paused' : configured === 'on-the-fly' ? 'on the fly' : configured === 'file' ? 'file' : 'set'
          if (mark.textContent !== text) mark.replaceChildren(badge(text, paused ? 'warn' : ''))
        },
        kind: 'wide',
      },
      { head: 'Ready', text: ({ ready }) => count(ready), kind: 'number' },
      { head: 'In flight', text: ({ in_flight: flight }) => count(flight), kind: 'number' },
      { head: 'Delayed', text: ({ delayed }) => count(delayed), kind: 'number wide' },
      {
        head: 'Dead',
        node: () => h('span', {}),
        update: (mark, { dead }) => {
          mark.textContent = count(dead)
          mark.className = dead > 0 ? 'bad' : ''
        },
        kind: 'number',
      },
      { head: 'Members', text: ({ members }) => count(members), kind: 'number' },
      { head: 'Oldest', text: ({ oldest_ms: oldest }) => (oldest === null ? '–' : span(oldest)), kind: 'number wide' },
      { head: 'In', text: ({ enqueued_per_sec: rate }) => perSecond(rate), kind: 'number wide' },
      { head: 'Done', text: ({ done_per_sec: rate }) => perSecond(rate), kind: 'number wide' },
      graphOf('Depth, last hour', 1, count),
      graphOf('Age, last hour', 3, secs),
    ],
  })

  const create = button(
    'New queue…',
    () =>
      ask({
        heading: 'New queue',
        text: 'A queue that stays, with settings of its own where they differ from those of the configuration.',
        fields: [field({ name: 'name', label: 'Name', required: true, hint: 'What follows $queue/, as in orders/new.' }), settingsFields()],
        submit: 'Create',
        act: async (values) => {
          await put(['queues', values.name], { settings: settingsOf(values) })
          toast(`The queue ${values.name} is there.`)
          route.go('queues', values.name)
        },
      }),
    { kind: 'main' },
  )

  return h('div', { className: 'page' }, pageHead(title, { actions: may('operator') && create }), list.element)
}
