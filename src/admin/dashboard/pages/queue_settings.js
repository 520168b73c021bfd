// Settings of a queue: keys of a [[queue]] table, with values as JSON has them.

import { field } from '../lib/ui.js'

// The numbers that a new queue is asked for; others can be set when it is there.
const NUMBERS = [
  ['prefetch', 'Prefetch', 'Jobs that a member may hold unacknowledged.'],
  ['ack_timeout_ms', 'Time to acknowledge, in ms', '0: any.'],
  ['max_deliveries', 'Deliveries until a job is a dead letter', null],
]

export function settingsFields() {
  return [
    field({ name: 'filters', label: 'Fed by these topic filters too', type: 'area', hint: 'One a line.' }),
    NUMBERS.map(([name, label, hint]) => field({ name, label, hint: hint ?? undefined, type: 'number', min: 0, placeholder: 'as configured' })),
  ]
}

// What those fields say: nothing of what was left empty.
export function settingsOf(values) {
  const settings = {}
  const filters = (values.filters ?? '').split('\n').map((filter) => filter.trim()).filter(Boolean)
  if (filters.length > 0) settings.filters = filters
  for (const [name] of NUMBERS) if (values[name] !== null) settings[name] = values[name]
  return settings
}

// A value as somebody types it: JSON, or else a word. Nothing: as the configuration has it.
export function settingOf(text) {
  const trimmed = text.trim()
  if (trimmed === '') return null
  try {
    return JSON.parse(trimmed)
  } catch {
    return trimmed
  }
}
