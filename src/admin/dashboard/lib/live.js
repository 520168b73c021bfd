// The last hour, as the broker remembers it, and each second of what comes.

import { events, get } from './api.js'

// So many rows are kept: what /history has at most, and as many again that came meanwhile.
const ROWS_MAX = 4000

// Listens as long as `signal` is not aborted. `changed(live)` is called when there is more.
export function live(signal, changed) {
  const state = {
    names: [],
    rows: [],
    // One value over time: [moments, values...], within the last `secs`.
    columns(names, secs) {
      const since = (state.rows.at(-1)?.[0] ?? 0) - secs * 1000
      const from = state.rows.findIndex(([at]) => at >= since)
      const rows = from < 0 ? [] : state.rows.slice(from)
      const places = names.map((name) => state.names.indexOf(name) + 1)
      return [rows.map(([at]) => at), ...places.map((place) => rows.map((row) => (place > 0 ? (row[place] ?? null) : null)))]
    },
    // The newest value; undefined where there is none (yet).
    last(name) {
      const place = state.names.indexOf(name) + 1
      return place > 0 ? (state.rows.at(-1)?.[place] ?? undefined) : undefined
    },
    has(name) {
      return state.names.includes(name)
    },
  }

  // Each ten seconds of the hour, and each second of the last minutes.
  const reload = async () => {
    const [hour, minutes] = await Promise.all([get(['history'], { seconds: 3600 }, signal), get(['history'], { seconds: 300 }, signal)])
    const from = minutes.rows[0]?.[0] ?? Infinity
    const newest = minutes.rows.at(-1)?.[0] ?? 0
    const since = state.rows.filter(([at]) => at > newest)
    state.names = hour.names
    state.rows = [...hour.rows.filter(([at]) => at < from), ...minutes.rows, ...since]
    changed(state)
  }
  const sample = (values) => {
    if (state.names.length === 0 || values.at_ms <= (state.rows.at(-1)?.[0] ?? 0)) return
    state.rows.push([values.at_ms, ...state.names.map((name) => values[name] ?? null)])
    if (state.rows.length > ROWS_MAX) state.rows.splice(0, state.rows.length - ROWS_MAX)
    changed(state)
  }
  events(['events'], {}, { sample }, signal, () => reload().catch(() => {}))
  return state
}
