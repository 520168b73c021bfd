// Asks the broker's HTTP API, beside which this page lies.

import * as clock from './clock.js'

const BASE = new URL('api/v1/', document.baseURI)

// Why a request came to nothing, as a sentence (RFC 9457).
export class Problem extends Error {
  constructor(status, document) {
    super(document?.detail || document?.title || `The broker answered with ${status}.`)
    this.status = status
    // Of a configuration that is not valid: what is wrong with it, one by one.
    this.errors = document?.errors ?? []
  }
}

// Who is logged in: { name, role }.
export const session = { name: '', role: 'viewer' }

const ROLES = ['viewer', 'operator', 'admin']

// Whether who is logged in has that role, or one above it.
export function may(role) {
  return ROLES.indexOf(session.role) >= ROLES.indexOf(role)
}

// Told when the broker does not know this browser (any more).
let whenUnknown = () => {}
export function onUnknown(listener) {
  whenUnknown = listener
}

// Where something of the API is. Parts are encoded; of `query` nothing that is empty or null.
export function address(parts, query) {
  const url = new URL(parts.map((part) => encodeURIComponent(part)).join('/'), BASE)
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== '' && value !== null && value !== undefined) url.searchParams.set(name, value)
  }
  return url
}

async function send(method, parts, { query, body, signal, isLogin } = {}) {
  const init = { method, signal, headers: { Accept: 'application/json' }, credentials: 'same-origin', cache: 'no-store' }
  // A page of another site cannot say this: see docs/dashboard.md.
  if (method !== 'GET') init.headers['X-Rotamq-Request'] = '1'
  if (body !== undefined) {
    init.headers['Content-Type'] = 'application/json'
    init.body = JSON.stringify(body)
  }
  let answer
  try {
    answer = await fetch(address(parts, query), init)
  } catch (error) {
    if (error.name === 'AbortError') throw error
    throw new Problem(0, { detail: 'The broker cannot be reached.' })
  }
  clock.heard(answer.headers.get('Date'))
  const isJson = /\bjson\b/.test(answer.headers.get('Content-Type') ?? '')
  const json = isJson ? await answer.json().catch(() => null) : null
  if (answer.ok) return json
  if (answer.status === 401 && !isLogin) whenUnknown()
  throw new Problem(answer.status, json)
}

export const get = (parts, query, signal) => send('GET', parts, { query, signal })
export const post = (parts, body = {}, query) => send('POST', parts, { body, query })
export const put = (parts, body) => send('PUT', parts, { body })
export const patch = (parts, body) => send('PATCH', parts, { body })
export const remove = (parts, query) => send('DELETE', parts, { query })

// Without one of these nobody is known yet: that they fail with 401 says no more.
export const login = (name, password) => send('POST', ['login'], { body: { name, password }, isLogin: true })
export const setup = (token, name, password) => send('POST', ['setup'], { body: { token, name, password }, isLogin: true })
export const me = () => send('GET', ['me'], { isLogin: true })

// What the broker says of itself outside of the API: /ready. 503 is an answer too.
export async function ready(signal) {
  const answer = await fetch(new URL('ready', document.baseURI), { signal, cache: 'no-store' })
  return answer.json()
}

// Server-sent events, by name, until `signal` is aborted. They rest while nobody sees the page,
// as a browser keeps few connections to one host. `opened`: again after each rest.
export function events(parts, query, listeners, signal, opened) {
  let source = null
  const open = () => {
    if (source || document.hidden || signal.aborted) return
    source = new EventSource(address(parts, query))
    source.addEventListener('open', () => opened?.())
    source.addEventListener('error', () => {
      // Closed for good: it was refused. It may be because the login has expired.
      if (source?.readyState !== EventSource.CLOSED) return
      close()
      get(['me']).then(() => setTimeout(open, 5000), () => setTimeout(open, 5000))
    })
    for (const [name, listener] of Object.entries(listeners)) {
      source.addEventListener(name, (event) => listener(JSON.parse(event.data)))
    }
  }
  const close = () => {
    source?.close()
    source = null
  }
  document.addEventListener('visibilitychange', () => (document.hidden ? close() : open()), { signal })
  signal.addEventListener('abort', close)
  open()
}
