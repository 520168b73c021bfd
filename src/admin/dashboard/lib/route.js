// Where on the dashboard one is: `#/queues/jobs?name=x`. Parts are percent-encoded, so that names
// with a slash in them are one part.

export function current() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?')
  return { parts: path.split('/').filter(Boolean).map(decode), query: new URLSearchParams(query) }
}

// A link to there.
export function to(...parts) {
  return `#/${parts.map(encodeURIComponent).join('/')}`
}

export function go(...parts) {
  location.hash = to(...parts)
}

// Changes what the address says beside the place, without going anywhere; null: no more of it.
export function say(changes) {
  const { parts, query } = current()
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === '') query.delete(name)
    else query.set(name, value)
  }
  const text = query.toString()
  history.replaceState(null, '', to(...parts) + (text && `?${text}`))
}

// What somebody typed into the address need not be valid.
function decode(part) {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}
