// Numbers, sizes, spans and moments, as people read them.

import * as clock from './clock.js'

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })
const tenths = new Intl.NumberFormat('en', { maximumFractionDigits: 1 })
const hundredths = new Intl.NumberFormat('en', { maximumFractionDigits: 2 })

export const NOTHING = '–'

const isNumber = (value) => typeof value === 'number' && Number.isFinite(value)

// 1,234 · 12.3 M
export function count(value) {
  if (!isNumber(value)) return NOTHING
  if (Math.abs(value) >= 1e9) return `${hundredths.format(value / 1e9)} G`
  if (Math.abs(value) >= 1e7) return `${hundredths.format(value / 1e6)} M`
  return whole.format(value)
}

// 0 · 0.25 · 7.3 · 1,234
export function decimal(value) {
  if (!isNumber(value)) return NOTHING
  const size = Math.abs(value)
  if (size >= 1e6) return `${hundredths.format(value / 1e6)} M`
  if (size >= 100) return whole.format(value)
  return (size >= 10 ? tenths : hundredths).format(value)
}

export function perSecond(value) {
  return isNumber(value) ? `${decimal(value)}/s` : NOTHING
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

// 512 B · 1.5 KiB · 64 MiB
export function bytes(value) {
  if (!isNumber(value)) return NOTHING
  let unit = 0
  let size = value
  while (Math.abs(size) >= 1024 && unit < UNITS.length - 1) {
    size /= 1024
    unit += 1
  }
  return `${(unit === 0 || size >= 100 ? whole : tenths).format(size)} ${UNITS[unit]}`
}

export function bytesPerSecond(value) {
  return isNumber(value) ? `${bytes(value)}/s` : NOTHING
}

export function percent(value) {
  return isNumber(value) ? `${tenths.format(value)} %` : NOTHING
}

// 250 µs · 12 ms · 3.4 s · 5 min 2 s · 2 h 5 min · 4 d 3 h
export function span(ms) {
  if (!isNumber(ms)) return NOTHING
  if (ms === 0) return '0 s'
  if (ms < 1) return `${whole.format(ms * 1000)} µs`
  if (ms < 1000) return `${(ms < 10 ? tenths : whole).format(ms)} ms`
  const secs = ms / 1000
  if (secs < 60) return `${(secs < 10 ? tenths : whole).format(secs)} s`
  const parts = [
    [Math.floor(secs / 86400), 'd'],
    [Math.floor(secs / 3600) % 24, 'h'],
    [Math.floor(secs / 60) % 60, 'min'],
    [Math.floor(secs) % 60, 's'],
  ]
  const first = parts.findIndex(([number]) => number > 0)
  const shown = parts.slice(first, first + 2).filter(([number]) => number > 0)
  return shown.map(([number, unit]) => `${number} ${unit}`).join(' ')
}

export function secs(value) {
  return isNumber(value) ? span(value * 1000) : NOTHING
}

const time = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', year: 'numeric' })

// 14:03:07 today, with the date before it on other days.
export function moment(ms) {
  if (!isNumber(ms)) return NOTHING
  const date = new Date(ms)
  const isToday = date.toDateString() === new Date().toDateString()
  return isToday ? time.format(date) : `${day.format(date)} ${time.format(date)}`
}

// To the millisecond, for logs.
export function instant(ms) {
  if (!isNumber(ms)) return NOTHING
  return `${moment(ms)}.${String(Math.floor(ms) % 1000).padStart(3, '0')}`
}

export function ago(ms) {
  if (!isNumber(ms)) return NOTHING
  const passed = clock.now() - ms
  return passed < 1000 ? 'now' : `${span(Math.floor(passed / 1000) * 1000)} ago`
}

// "1 queue", "2 queues".
export function some(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`
}

export function yesNo(value) {
  return value === undefined || value === null ? NOTHING : value ? 'yes' : 'no'
}

// Bytes from outside: as text where they are some, or else as hexadecimal digits.
export function payloadText(octets) {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(octets)
    // Control characters but tab and line ends say that it is none.
    if (!/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/.test(text)) return text
  } catch {
    // It is no UTF-8.
  }
  return [...octets].map((octet) => octet.toString(16).padStart(2, '0')).join(' ')
}

// A configuration's value, or any JSON.
export function value(json) {
  if (json === null || json === undefined) return NOTHING
  return typeof json === 'string' ? json : JSON.stringify(json)
}

// A field of the API in words: `in_flight_out` as "In flight out". Its unit is its value's.
export function words(name) {
  const text = name.replace(/_(at_ms|ms|secs)$/, '').replaceAll('_', ' ')
  return text.charAt(0).toUpperCase() + text.slice(1)
}

const LONGEST_SPAN_MS = 1e12

// A value of the API, as its name says what it is.
export function byName(name, json) {
  if (json === null || json === undefined || json === '') return NOTHING
  if (typeof json === 'boolean') return yesNo(json)
  if (typeof json === 'number') {
    // What ends in `_ms` is a span, or a moment since 1970: no span is so long.
    if (name.endsWith('_ms') && json > LONGEST_SPAN_MS) return `${moment(json)} (${ago(json)})`
    if (name.endsWith('_ms')) return span(json)
    if (name.endsWith('_secs')) return json >= 0xffffffff ? 'for ever' : secs(json)
    if (/(^|_)bytes($|_)/.test(name)) return bytes(json)
    // It is none that is counted with.
    if (name.endsWith('_id')) return String(json)
    return decimal(json) === count(json) ? count(json) : decimal(json)
  }
  if (Array.isArray(json)) return json.length === 0 ? NOTHING : json.map((one) => value(one)).join(', ')
  if (typeof json === 'object') return Object.entries(json).map(([key, one]) => `${words(key).toLowerCase()}: ${byName(key, one)}`).join(', ')
  return String(json)
}
