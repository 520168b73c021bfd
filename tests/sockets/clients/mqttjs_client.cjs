// One client of MQTT.js, told what to do by lines of JSON.
//
// What came of it, and every message, is written as a line of JSON.

const fs = require('fs')
const readline = require('readline')
const mqtt = require('mqtt')

// A field of a message and the property that says it.
const EXTRA = {
  format: 'payloadFormatIndicator',
  expiry_secs: 'messageExpiryInterval',
  content_type: 'contentType',
  response_topic: 'responseTopic',
  correlation: 'correlationData',
  alias: 'topicAlias',
  user: 'userProperties',
  ids: 'subscriptionIdentifier',
}
const CONNECT = {
  session_expiry_secs: 'sessionExpiryInterval',
  receive_maximum: 'receiveMaximum',
  packet_bytes_max: 'maximumPacketSize',
  topic_alias_maximum: 'topicAliasMaximum',
}
const CONNACK = { ...CONNECT, assigned_id: 'assignedClientIdentifier' }

function tell(event, fields = {}) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + '\n')
}

function toProperties(names, fields) {
  const properties = {}
  for (const [field, name] of Object.entries(names)) {
    let value = fields[field]
    if (value === null || value === undefined || value.length === 0) continue
    if (field === 'correlation') value = Buffer.from(value)
    if (field === 'format') value = Boolean(value)
    if (field === 'user') {
      // Values of one name in a list, which is all the order that it keeps.
      value = value.reduce((all, [name, value]) => ({ ...all, [name]: [...(all[name] ?? []), value] }), {})
    }
    properties[name] = value
  }
  return properties
}

function fromProperties(names, properties = {}) {
  const fields = {}
  for (const [field, name] of Object.entries(names)) {
    let value = properties[name]
    if (value === undefined) continue
    if (field === 'format') value = Number(value)
    if (field === 'ids') value = [].concat(value)
    if (field === 'user') {
      value = Object.entries(value).flatMap(([name, values]) => [].concat(values).map((value) => [name, value]))
    }
    fields[field] = Buffer.isBuffer(value) ? value.toString() : value
  }
  return fields
}

const lines = readline.createInterface({ input: process.stdin })
let client
let options

function connect() {
  const five = options.version === '5'
  const will = options.will && {
    ...options.will,
    properties: five ? { willDelayInterval: options.will.delay_secs } : undefined,
  }
  const plain = options.websocket ? 'ws' : 'mqtt'
  client = mqtt.connect({
    protocol: options.ca ? plain + 's' : plain,
    path: '/mqtt',
    ca: options.ca ? fs.readFileSync(options.ca) : undefined,
    host: options.host,
    port: options.port,
    clientId: options.id,
    clean: options.clean,
    protocolVersion: five ? 5 : 4,
    keepalive: options.keep_alive_secs,
    reconnectPeriod: 0,
    resubscribe: false,
    will: will || undefined,
    properties: five ? toProperties(CONNECT, options) : undefined,
    autoAssignTopicAlias: options.assign_aliases,
    customHandleAcks: (topic, payload, packet, done) => {
      const code = options.answers[payload.toString()] ?? 0
      // It hands on only what it accepts.
      if (code) message(topic, payload, packet)
      done(code)
    },
  })
  client.on('connect', (packet) => {
    const connack = { session_present: packet.sessionPresent, ...fromProperties(CONNACK, packet.properties) }
    tell('connected', { reason: 0, connack })
  })
  client.on('message', message)
  let ended = {}
  client.on('disconnect', (packet) => {
    ended = { reason: packet.reasonCode ?? 0, why: packet.properties?.reasonString }
  })
  client.on('error', (error) => {
    if (!client.connected && error.code) tell('connected', { reason: error.code })
  })
  client.on('close', () => tell('closed', { ...ended, says: 'the connection has ended' }))
}

function message(topic, payload, packet) {
  tell('message', {
    topic,
    payload: payload.toString('hex'),
    qos: packet.qos,
    retain: packet.retain,
    id: packet.messageId,
    extra: fromProperties(EXTRA, packet.properties),
  })
}

lines.on('line', (line) => {
  const command = JSON.parse(line)
  if (!options) {
    options = command
    return connect()
  }
  switch (command.do) {
    case 'subscribe': {
      const how = {
        qos: command.qos,
        nl: command.no_local,
        rap: command.retain_as_published,
        rh: command.retain_handling,
      }
      const filters = Object.fromEntries(command.filters.map((filter) => [filter, how]))
      const properties = command.id ? { subscriptionIdentifier: command.id } : undefined
      client.subscribe(filters, { properties }, (error, granted, packet) => {
        tell('subscribed', { granted: packet.granted })
      })
      break
    }
    case 'unsubscribe':
      client.unsubscribe(command.filter, () => tell('unsubscribed'))
      break
    case 'publish': {
      const { qos, retain } = command
      const properties = options.version === '5' ? toProperties(EXTRA, command.extra) : undefined
      const payload = Buffer.from(command.payload, 'hex')
      client.publish(command.topic, payload, { qos, retain, properties }, (error, packet) => {
        tell('published', { reason: error?.code ?? packet?.reasonCode ?? 0 })
      })
      break
    }
    case 'disconnect': {
      const secs = command.session_expiry_secs
      const how = secs === null ? {} : { properties: { sessionExpiryInterval: secs } }
      client.end(false, how, () => process.exit(0))
      break
    }
  }
})
lines.on('close', () => process.exit(0))
