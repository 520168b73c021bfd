// What time it is for the broker: its moments are compared with that, whatever this machine's
// clock shows.

// By how much a clock may be off, as answers say the time in whole seconds.
const CLOSE_MS = 2000

let ahead = 0

export function now() {
  return Date.now() + ahead
}

// An answer says when it was made.
export function heard(date) {
  const at = Date.parse(date ?? '')
  if (Number.isNaN(at)) return
  const difference = at - Date.now()
  ahead = Math.abs(difference) > CLOSE_MS ? difference : 0
}
