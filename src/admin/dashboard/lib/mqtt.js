// A client of MQTT 5 in this page, over WebSocket at /mqtt, with the rights of the user that it
// says it is: those of the dashboard's user are for the API alone.

import { field, form } from './ui.js'
import { h } from './dom.js'

// MQTT.js is large, and few pages need it.
const library = () => import('../vendor/mqtt.esm.js').then((module) => module.default)

// What a job can be answered with (PUBACK, MQTT 5, 3.4.2.1).
export const DONE = 0x00
export const GIVE_BACK = 0x80
export const BUSY = 0x97
export const NEVER = 0x99

const REASONS = {
  0x04: 'disconnected, and its will was asked for',
  0x10: 'nobody subscribes to it',
  0x80: 'unspecified error',
  0x81: 'malformed packet',
  0x82: 'protocol error',
  0x83: 'not accepted here',
  0x85: 'the client identifier is not valid',
  0x86: 'user name or password is wrong',
  0x87: 'not allowed',
  0x88: 'the server is not available',
  0x89: 'the server is busy',
  0x8a: 'banned',
  0x8b: 'the server stops',
  0x8d: 'nothing was heard for too long',
  0x8e: 'another connection took the session over',
  0x8f: 'the filter is not valid',
  0x90: 'the topic is not valid',
  0x93: 'too much at a time',
  0x95: 'the packet is too large',
  0x97: 'a limit was reached, or the queue is full',
  0x98: 'a person disconnected it',
  0x99: 'the payload is not what it says',
  0x9c: 'use another server',
  0x9d: 'the server has moved',
}

// A reason code in words, with what the broker said of it.
export function reason(code, said) {
  const words = REASONS[code] ?? (code < 0x80 ? 'success' : 'refused')
  return `${said ? `${said} – ` : ''}${words} (0x${code.toString(16).padStart(2, '0')})`
}

// User properties in order, as pairs; MQTT.js has those of one name in a list.
export function pairs(userProperties) {
  return Object.entries(userProperties ?? {}).flatMap(([name, values]) => [values].flat().map((value) => [name, value]))
}

export class Client {
  #mqtt
  // QoS 1 deliveries that are not acknowledged until a person says so.
  #held = new Set()
  #send
  // This side has ended it.
  #isLeft = false

  // Resolves once it is let in; throws the reason why not, as a sentence.
  //
  // `handlers`: message(topic, payload, packet), which says whether it holds a delivery; and
  // closed(why).
  static async connect({ clientId, username, password, clean = true, expirySecs = 0 }, handlers) {
    const mqtt = await library()
    const url = new URL('mqtt', document.baseURI)
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:'
    const client = new Client()
    client.#mqtt = mqtt.connect(url.href, {
      protocolVersion: 5,
      clientId,
      username: username || undefined,
      password: password || undefined,
      clean,
      keepalive: 30,
      reconnectPeriod: 0,
      resubscribe: false,
      // Its timers in a worker would need a script that the Content-Security-Policy forbids.
      timerVariant: 'native',
      properties: { sessionExpiryInterval: expirySecs },
    })
    client.#holdBack()
    let why = null
    client.#mqtt.on('message', (topic, payload, packet) => {
      if (handlers.message(topic, payload, packet) && packet.qos === 1) client.#held.add(packet.messageId)
    })
    client.#mqtt.on('disconnect', (packet) => {
      why = reason(packet.reasonCode ?? 0, packet.properties?.reasonString)
    })
    return new Promise((resolve, reject) => {
      let isIn = false
      client.#mqtt.on('connect', () => {
        isIn = true
        resolve(client)
      })
      client.#mqtt.on('error', (error) => {
        why ??= error.code > 0 && error.code < 0x100 ? reason(error.code) : error.message
      })
      client.#mqtt.on('close', () => {
        client.#held.clear()
        if (client.#isLeft) return
        if (isIn) handlers.closed?.(why)
        else reject(new Refused(`The connection was refused: ${why ?? 'the broker closed it'}.`))
        isIn = false
      })
    })
  }

  // MQTT.js acknowledges by itself, and with `customHandleAcks` reads nothing more (no PINGRESP
  // either) until that is done. So its PUBACK of a delivery that is held is kept from being sent.
  #holdBack() {
    const send = this.#mqtt._sendPacket.bind(this.#mqtt)
    this.#send = send
    this.#mqtt._sendPacket = (packet, ...callbacks) => {
      if (packet.cmd !== 'puback' || !this.#held.has(packet.messageId)) return send(packet, ...callbacks)
      callbacks.find((callback) => typeof callback === 'function')?.()
      return this.#mqtt
    }
  }

  // Answers a delivery that was held.
  answer(packet, reasonCode, userProperties) {
    if (!this.#held.delete(packet.messageId)) return
    this.#send({ cmd: 'puback', messageId: packet.messageId, reasonCode, properties: userProperties ? { userProperties } : undefined })
  }

  async subscribe(filter, { qos = 0, userProperties, ...how } = {}) {
    const properties = userProperties ? { userProperties } : undefined
    const granted = await told(this.#mqtt.subscribeAsync(filter, { qos, properties, ...how }))
    return granted[0]?.qos ?? qos
  }

  unsubscribe(filter) {
    return told(this.#mqtt.unsubscribeAsync(filter))
  }

  // The PUBACK or PUBCOMP; nothing at QoS 0.
  publish(topic, payload, options) {
    return told(this.#mqtt.publishAsync(topic, payload, options))
  }

  end() {
    this.#isLeft = true
    this.#mqtt.removeAllListeners('message')
    this.#mqtt.end()
  }
}

// Something that the broker did not do, as a sentence.
export class Refused extends Error {
  isRefusal = true
}

async function told(promise) {
  try {
    return await promise
  } catch (error) {
    throw new Refused(error.code >= 0x80 ? `The broker refused it: ${reason(error.code, error.packet?.properties?.reasonString)}.` : `${error.message}.`)
  }
}

// As whom somebody came last, for as long as the page is open.
const last = { clientId: '', username: '', password: '' }

function anyId() {
  const octets = crypto.getRandomValues(new Uint8Array(4))
  return `dashboard-${[...octets].map((octet) => octet.toString(16).padStart(2, '0')).join('')}`
}

// A form that connects. `connected(client, values)`.
export function connectForm({ handlers, connected, more = [] }) {
  return form({
    className: 'connect',
    fields: [
      h(
        'div',
        { className: 'columns' },
        field({ name: 'clientId', label: 'Client identifier', value: last.clientId || anyId(), required: true }),
        field({ name: 'username', label: 'MQTT user', value: last.username, hint: 'Empty only where every listener lets such clients in, and for operators and admins here.' }),
        field({ name: 'password', label: 'Password', type: 'password', value: last.password, autocomplete: 'off' }),
        more,
      ),
    ],
    submit: 'Connect',
    act: async (values) => {
      Object.assign(last, { clientId: values.clientId, username: values.username, password: values.password })
      connected(await Client.connect(values, handlers), values)
    },
  })
}
