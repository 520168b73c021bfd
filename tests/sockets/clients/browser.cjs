// A page in headless Chromium that runs MQTT.js: what a web application does.
//
// Arguments: the WebSocket's address, and the origin of the page, which is on no
// server: its request is answered here. Writes what came of it as a line of
// JSON for each version of MQTT.

const path = require('path')
const { chromium } = require('playwright-core')

async function inPage({ url, protocolVersion }) {
  const client = mqtt.connect(url, { protocolVersion, clientId: `browser-${protocolVersion}`, reconnectPeriod: 0 })
  const got = []
  const errors = []
  client.on('error', (error) => errors.push(String(error.message ?? error)))
  const closed = new Promise((resolve) => client.once('close', resolve))
  const connected = new Promise((resolve) => client.once('connect', () => resolve(true)))
  if (!(await Promise.race([connected, closed]))) return { connected: false, errors }
  // Behind this is what the two subscriptions bring.
  const both = new Promise((resolve) => {
    client.on('message', (topic, payload) => {
      got.push([topic, payload.length > 100 ? payload.length : payload.toString()])
      if (got.length === 2) resolve()
    })
  })
  await client.subscribeAsync({ topic: { qos: 1 }, '$queue/browser': { qos: 1 } })
  await client.publishAsync('topic', 'x'.repeat(300000), { qos: 2 })
  await client.publishAsync('$queue/browser', 'a job', { qos: 1 })
  await both
  await client.endAsync()
  return { connected: true, got: got.sort(), errors }
}

async function main() {
  const [url, origin] = process.argv.slice(2)
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--no-sandbox', // or it does not start as root, as tests in containers are
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      // The page seems to be from elsewhere, and the broker is on this machine.
      '--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets',
    ],
  })
  try {
    const page = await browser.newPage()
    page.on('console', (message) => console.error(message.text()))
    await page.route(`${origin}/**`, (route) => route.fulfill({ contentType: 'text/html', body: '<!doctype html>' }))
    await page.goto(`${origin}/`)
    const mqttjs = path.join(path.dirname(require.resolve('mqtt/package.json')), 'dist/mqtt.min.js')
    await page.addScriptTag({ path: mqttjs })
    for (const protocolVersion of [4, 5]) {
      const came = await page.evaluate(inPage, { url, protocolVersion })
      process.stdout.write(JSON.stringify(came) + '\n')
    }
  } finally {
    await browser.close()
  }
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
