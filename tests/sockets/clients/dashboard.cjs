// Walks through the dashboard in headless Chromium: every page and every action, by each role.
//
// Arguments: the address at which the first admin is made, the MQTT listener's address, and a folder
// for pictures. What a page shows is compared with what the API says. It fails for whatever the
// console complains of, a request to another origin, what the Content-Security-Policy forbids, what
// axe-core calls serious, and a page that is wider than a telephone.
//
// DASHBOARD_FILES: a folder whose files are taken in place of those in the program, for whoever works on
// them.

const assert = require('assert/strict')
const fs = require('fs')
const path = require('path')
const mqtt = require('mqtt')
const { chromium } = require('playwright-core')

const [setupUrl, mqttAddress, pictures] = process.argv.slice(2)
const base = new URL('/', setupUrl)
const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')
const DEADLINE = 30000
const WIDE = { width: 1280, height: 800 }
const NARROW = { width: 360, height: 740 }
const ADMIN = { name: 'ann', password: 'correct horse battery' }
const VIEWER = { name: 'vic', password: 'just looking around' }

// Whatever should not have been.
const complaints = []
let page

const button = (name, within = page) => within.getByRole('button', { name, exact: true })
const heading = (name) => page.getByRole('heading', { level: 1, name, exact: true })
const panel = (name) => page.getByRole('region', { name, exact: true }).filter({ has: page.getByRole('heading', { name, exact: true }) })
const dialog = () => page.getByRole('dialog')
const toast = (text) => page.locator('#toasts').getByText(text)

async function until(what, happened) {
  const end = Date.now() + DEADLINE
  for (;;) {
    const last = await happened()
    if (last === true) return
    if (Date.now() > end) throw new Error(`this never happened: ${what}; the last was ${JSON.stringify(last)}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

async function api(way, method = 'GET', data) {
  const answer = await page.request.fetch(new URL(`api/v1/${way}`, base).href, { method, data, headers: { 'X-Rotamq-Request': '1' } })
  assert(answer.ok(), `${method} ${way}: ${answer.status()} ${await answer.text()}`)
  return answer.json().catch(() => null)
}

const queueOf = (name) => api(`queues/${encodeURIComponent(name)}`)

// ---- pictures, and what is checked of each page

async function drawn() {
  // Two frames: what has its size now has been drawn in it.
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))))
}

async function check(name) {
  for (const [scheme, width] of [
    ['light', WIDE],
    ['dark', WIDE],
    ['light', NARROW],
    ['dark', NARROW],
  ]) {
    await page.emulateMedia({ colorScheme: scheme })
    await page.setViewportSize(width)
    await page.evaluate(() => scrollTo(0, 0))
    await drawn()
    const size = width === WIDE ? 'wide' : 'narrow'
    // Behind a dialog is nothing to be seen.
    const fullPage = (await dialog().count()) === 0
    await page.screenshot({ path: path.join(pictures, `${name}-${scheme}-${size}.png`), fullPage })
    const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
    if (wider > 0) complaints.push(`${name} is ${wider} pixels wider than ${width.width}`)
    if (width === NARROW && scheme === 'dark') continue
    const found = await page.evaluate(() => axe.run(document, { resultTypes: ['violations'] }))
    for (const { id, impact, nodes } of found.violations) {
      if (impact !== 'serious' && impact !== 'critical') continue
      complaints.push(`${name}, ${scheme}, ${size}: ${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`)
    }
  }
  await page.emulateMedia({ colorScheme: 'light' })
  await page.setViewportSize(WIDE)
  await drawn()
}

// One of those in docs/pictures.
async function picture(name) {
  await page.evaluate(() => document.getElementById('toasts').replaceChildren())
  await page.screenshot({ path: path.join(pictures, `docs-${name}.png`) })
}

async function go(menu, title = menu) {
  await page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: menu, exact: true }).click()
  await heading(title).waitFor()
}

// A dialog: fields by their labels, then what it is sent with.
async function answer(fields, submit) {
  for (const [label, value] of Object.entries(fields)) {
    const field = dialog().getByLabel(label, { exact: true })
    const tag = await field.evaluate((element) => (element.type === 'checkbox' ? 'check' : element.tagName))
    if (tag === 'SELECT') await field.selectOption(value)
    else if (tag === 'check') await field.setChecked(value)
    else await field.fill(value)
  }
  await button(submit, dialog()).click()
  await dialog().waitFor({ state: 'detached' })
}

// ---- whose messages there are

// Puts jobs into a queue.
async function putIn(client, queue, payloads) {
  for (const payload of payloads) await client.publishAsync(`$queue/${queue}`, payload, { qos: 1 })
}

// A worker that can do nothing: what it is given is dead.
async function killJobs(queue, count) {
  let seen = 0
  const client = await mqtt.connectAsync(`mqtt://${mqttAddress}`, {
    protocolVersion: 5,
    clientId: 'worker-that-rejects',
    customHandleAcks: (topic, payload, packet, done) => {
      seen += 1
      done(0x99)
    },
  })
  await client.subscribeAsync(`$queue/${queue}`, { qos: 1 })
  await until(`${count} jobs are rejected`, () => seen >= count || seen)
  await until('they are dead letters', async () => {
    const { dead } = await queueOf(queue)
    return dead === count || dead
  })
  await client.endAsync()
}

// ---- the pages

async function firstLogin() {
  await page.goto(setupUrl)
  const form = page.locator('form').filter({ hasText: 'One-time token' })
  await form.getByLabel('Name of the first administrator').fill(ADMIN.name)
  await form.getByLabel('Password', { exact: true }).fill(ADMIN.password)
  await form.getByLabel('Password again').fill(ADMIN.password)
  await check('setup')
  await button('Set up').click()
  await heading('Overview').waitFor()
}

async function logIn({ name, password }) {
  await button('Log in').waitFor()
  await page.getByLabel('Name', { exact: true }).fill(name)
  await page.getByLabel('Password', { exact: true }).first().fill(password)
  await button('Log in').click()
}

async function overview() {
  const tile = (name) => page.locator('.tile', { has: page.locator('dt', { hasText: new RegExp(`^${name}$`) }) }).locator('dd')
  for (const [name, field] of [
    ['Connections', 'connections'],
    ['Sessions', 'sessions'],
  ]) {
    await until(`the overview shows how many ${field} there are`, async () => {
      const [shown, status] = [await tile(name).textContent(), await api('status')]
      return shown === String(status[field]) || `${shown} for ${status[field]}`
    })
  }
  // Each second brings a row.
  const before = (await api('history?seconds=300')).rows.length
  await until('the history grows', async () => (await api('history?seconds=300')).rows.length > before + 1)
  await page.getByRole('combobox', { name: 'How far back' }).selectOption('300')
  await until('graphs say in words what they show', async () => /last .*, least .*, most/.test(await page.locator('.graph').first().textContent()))
  await check('overview')
}

// When there is something to be seen.
async function pictureThem(client) {
  const { ready } = await queueOf('mail')
  await killJobs('mail', ready)
  await putIn(client, 'mail', Array.from({ length: 5 }, (_, number) => `{"to": "friend-${number}@example.com"}`))
  await page.goto(new URL('#/queues/mail', base).href)
  await panel('Dead letters').getByText('rejected').first().waitFor()
  await panel('Messages').getByText('friend-0').waitFor()
  await picture('queue')
  await go('Overview')
  await page.locator('.tile').first().waitFor()
  await page.getByRole('combobox', { name: 'How far back' }).selectOption('300')
  await until('a graph is drawn', async () => (await page.locator('.graph canvas').count()) > 3)
  await picture('overview')
}

async function loginsAreChecked() {
  await button('Log out').click()
  await logIn({ name: ADMIN.name, password: 'wrong' })
  await page.getByRole('alert').filter({ hasText: /./ }).first().waitFor()
  await check('login')
  await logIn(ADMIN)
  await heading('Overview').waitFor()
  complaints.splice(0, complaints.length, ...complaints.filter((complaint) => !/401/.test(complaint)))
}

async function queues(client) {
  await go('Queues')
  const row = (name) => page.getByRole('row').filter({ has: page.getByRole('link', { name, exact: true }) })
  await row('orders/new').waitFor()
  // By keyboard alone: to the button, through the dialog, and back to where one was.
  await page.getByRole('link', { name: 'Queues', exact: true }).first().focus()
  await until('Tab comes to the button', async () => {
    await page.keyboard.press('Tab')
    return page.evaluate(() => document.activeElement.textContent === 'New queue…')
  })
  await page.keyboard.press('Enter')
  await dialog().waitFor()
  await check('queue-new')
  await page.keyboard.type('mail')
  await page.keyboard.press('Tab')
  await page.keyboard.type('mail/#')
  await page.keyboard.press('Tab')
  await page.keyboard.type('3')
  await page.keyboard.press('Tab')
  await page.keyboard.press('Tab')
  await page.keyboard.type('2')
  await page.keyboard.press('Enter')
  await heading('mail').waitFor()
  const { settings } = await queueOf('mail')
  assert.deepEqual([settings.filters, settings.prefetch, settings.max_deliveries], [['mail/#'], 3, 2])

  await putIn(client, 'orders/new', ['{"order": 1}', '{"order": 2}'])
  await putIn(client, 'mail', Array.from({ length: 12 }, (_, number) => `{"to": "customer-${number}@example.com", "about": "<b>your</b> order"}`))
  await killJobs('mail', 12)
  await putIn(client, 'mail', Array.from({ length: 7 }, (_, number) => `{"to": "friend-${number}@example.com"}`))
  await go('Queues')
  for (const name of ['orders/new', 'mail']) {
    await until(`the list shows ${name} as the API does`, async () => {
      const [cells, queue] = [await row(name).getByRole('cell').allTextContents(), await queueOf(name)]
      const expected = [queue.ready, queue.in_flight, queue.delayed, queue.dead, queue.members].map(String)
      return JSON.stringify(cells.slice(1, 6)) === JSON.stringify(expected) || [cells, expected]
    })
  }
  await page.getByRole('searchbox', { name: 'Name' }).fill('mail')
  await until('the filter holds', async () => (await row('orders/new').count()) === 0)
  assert(page.url().includes('name=mail'))
  await page.getByRole('searchbox', { name: 'Name' }).fill('')
  await row('orders/new').waitFor()
  await check('queues')
}

async function oneQueue() {
  await page.getByRole('link', { name: 'mail', exact: true }).click()
  await heading('mail').waitFor()
  const letters = panel('Dead letters')
  await letters.getByText('rejected').first().waitFor()
  assert.equal(await letters.getByRole('checkbox').count(), 12)
  await check('queue')

  // What comes from clients is text, whatever it looks like.
  await letters.getByRole('row').nth(1).getByRole('button').click()
  await dialog().getByText('<b>your</b>').waitFor()
  await dialog().getByText('dead-reason').waitFor()
  await dialog().getByRole('cell', { name: 'stored' }).waitFor()
  await check('message')
  await button('Close', dialog()).click()

  const dead = async (count) => until(`${count} dead letters are left`, async () => {
    const { dead } = await queueOf('mail')
    return dead === count || dead
  })
  for (const number of [0, 1]) await letters.getByRole('checkbox').nth(number).check()
  await button('Redrive…', letters).click()
  await check('redrive')
  await answer({}, 'Redrive')
  await toast('2 messages were moved.').waitFor()
  await dead(10)
  await button('Redrive…', letters).click()
  await answer({ Which: 'all', 'So many at most': '3' }, 'Redrive')
  await toast('3 messages were moved.').waitFor()
  await dead(7)
  await button('Redrive…', letters).click()
  await answer({ Which: 'rate', 'Messages a second': '1000' }, 'Redrive')
  await dead(0)
  await letters.getByText('There are no dead letters.').waitFor()

  await button('Pause…').click()
  await check('pause')
  await answer({}, 'Pause')
  await page.getByText('paused', { exact: true }).waitFor()
  assert.equal((await queueOf('mail')).paused, true)
  await button('Resume').click()
  await button('Pause…').waitFor()
  assert.equal((await queueOf('mail')).paused, false)

  await button('Change…').click()
  await answer({ Key: 'max_deliveries', Value: '5' }, 'Change')
  assert.equal((await queueOf('mail')).settings.max_deliveries, 5)
  await button('Change…').click()
  await dialog().getByLabel('Value', { exact: true }).fill('many')
  await button('Change', dialog()).click()
  await dialog().getByRole('alert').filter({ hasText: /ack_timeout_ms/i }).waitFor()
  await page.keyboard.press('Escape')
  refused()

  await button('Move…').first().click()
  await answer({ 'To the queue': 'mail/later', 'So many at most': '4' }, 'Move')
  await toast('4 messages were moved.').waitFor()
  assert.equal((await queueOf('mail/later')).ready, 4)
  const left = (await queueOf('mail')).ready
  await button('Purge…').click()
  await answer({ 'How many': '5' }, 'Purge')
  await toast('5 messages were done away with.').waitFor()
  assert.equal((await queueOf('mail')).ready, left - 5)
  await panel('Events').getByRole('cell', { name: 'dropped' }).first().waitFor()

  await page.goto(new URL(`#/queues/${encodeURIComponent('mail/later')}`, base).href)
  await heading('mail/later').waitFor()
  await button('Delete…').click()
  await button('Delete', dialog()).click()
  await dialog().getByRole('alert').filter({ hasText: /./ }).waitFor()
  refused()
  await answer({ 'With all that it holds, and though it has members': true }, 'Delete')
  await heading('Queues').waitFor()
  const { items } = await api('queues?name=mail')
  assert.deepEqual(items.map(({ name }) => name).filter((name) => !name.startsWith('$dead/')), ['mail'])

  // A name with a slash in it is one part of the address; members are as the API says.
  await page.getByRole('link', { name: 'orders/new', exact: true }).click()
  await heading('orders/new').waitFor()
  const members = (await queueOf('orders/new')).member_list.map(({ client }) => client)
  for (const member of members) await panel('Members').getByRole('link', { name: member }).waitFor()
}

// The browser says in its console that an answer was a refusal: here that was wanted.
function refused() {
  const at = complaints.findIndex((complaint) => /status of 4/.test(complaint))
  if (at >= 0) complaints.splice(at, 1)
}

// What was there before the filter may still be shown for a moment.
async function rowsAreThoseOf(list) {
  await until(`as many rows as ${list} has`, async () => {
    const [shown, { items }] = [await page.locator('tbody tr').count(), await api(list)]
    return shown === items.length || `${shown} for ${items.length}`
  })
}

async function clients(client) {
  await go('Clients')
  const row = (name) => page.getByRole('row').filter({ has: page.getByRole('link', { name, exact: true }) })
  await page.getByRole('searchbox', { name: 'Client' }).fill('sensor')
  await row('sensor-7').waitFor()
  await rowsAreThoseOf('clients?client=sensor')
  await page.getByRole('searchbox', { name: 'Client' }).fill('')
  await row('worker-1').waitFor()
  await check('clients')
  await row('sensor-7').getByRole('link').click()
  await heading('sensor-7').waitFor()
  await panel('Subscriptions').getByText('room/+/set').waitFor()
  await check('client')

  await client.subscribeAsync('something', { qos: 1 })
  await page.goto(new URL('#/clients/walker', base).href)
  await heading('walker').waitFor()
  const closed = new Promise((resolve) => client.once('disconnect', resolve))
  await button('Disconnect…').click()
  await check('disconnect')
  await answer({}, 'Disconnect')
  assert.equal((await closed).reasonCode, 0x98)
  await until('it has come again', () => client.connected)

  await go('Clients')
  await page.getByRole('link', { name: 'Sessions', exact: true }).click()
  await row('walker').waitFor()
  await check('sessions')
  await row('walker').getByRole('link').click()
  await heading('walker').waitFor()
  const ended = new Promise((resolve) => client.once('disconnect', resolve))
  await button('End session…').click()
  await answer({}, 'End session')
  await ended
  await until('it has come again', () => client.connected)
  await go('Clients')
  await page.getByRole('link', { name: 'Subscriptions', exact: true }).click()
  await page.getByRole('searchbox', { name: 'That match the topic' }).fill('room/1/set')
  await row('sensor-7').waitFor()
  await rowsAreThoseOf('subscriptions?topic=room/1/set')
  await check('subscriptions')
}

async function topics(client) {
  await client.publishAsync('room/1/temperature', '21.5', { qos: 1, retain: true })
  await client.publishAsync('room/2/temperature', '<script>alert(1)</script>', { qos: 1, retain: true })
  await go('Topics')
  await check('topics-connect')
  await page.getByLabel('Topic filter').fill('room/#')
  await button('Connect').click()
  const line = (name) => page.locator('.tree .topic').filter({ hasText: new RegExp(`^${name}$`) })
  await line('temperature').first().waitFor()
  await client.publishAsync('room/3/humidity', '40', { qos: 1 })
  await line('humidity').click()
  await page.getByText('room/3/humidity').waitFor()
  await page.locator('.chosen pre', { hasText: '40' }).waitFor()
  await check('topics')
  await line('temperature').first().click()
  await button('Delete the retained message…').click()
  await answer({}, 'Delete')
  await page.getByRole('link', { name: 'Retained messages' }).click()
  await button('room/2/temperature').waitFor()
  await rowsAreThoseOf('retained')
  await check('retained')
  await button('room/2/temperature').click()
  await dialog().getByText('<script>alert(1)</script>').waitFor()
  await button('Close', dialog()).click()
  await page.getByLabel('Topic filter').fill('room/#')
  await button('Delete all that match…').click()
  await answer({}, 'Delete')
  await page.getByText('Nothing is retained there.').waitFor()
  assert.deepEqual((await api('retained?filter=room/%23')).items, [])
}

async function workbench() {
  await go('Workbench')
  await page.getByLabel('Client identifier').fill('bench')
  await check('workbench-connect')
  await button('Connect').click()
  await page.getByText('connected').first().waitFor()

  const form = (name) => panel(name)
  await form('Subscribe').getByLabel('Topic filter').fill('room/+/temperature')
  await button('Subscribe', form('Subscribe')).click()
  await form('Subscriptions').getByText('room/+/temperature').waitFor()
  const publish = async (topic, payload, times = '1') => {
    await form('Publish').getByLabel('Topic', { exact: true }).fill(topic)
    await form('Publish').getByLabel('Payload').fill(payload)
    await form('Publish').getByLabel('How many times').fill(times)
    await button('Publish', form('Publish')).click()
    await form('Publish').getByText(/^Acknowledged/).waitFor()
  }
  await form('Publish').getByText('More').click()
  await publish('room/5/temperature', '22.25')
  await form('Messages').getByText('22.25').waitFor()

  await form('Join a queue').getByLabel('Queue', { exact: true }).fill('demo')
  await form('Join a queue').getByLabel('Prefetch').fill('2')
  await button('Join').click()
  await form('Subscriptions').getByText('$queue/demo').waitFor()
  await publish('$queue/demo', '{"invoice": 42}', '4')
  const jobs = page.locator('.jobs > li')
  const inHands = (count) => until(`${count} jobs are in one's hands`, async () => (await jobs.count()) === count)
  const queue = (expected) => until(`the queue is at ${JSON.stringify(expected)}`, async () => {
    const { ready, in_flight, delayed, dead, done } = await queueOf('demo')
    return JSON.stringify([ready, in_flight, delayed, dead, done]) === JSON.stringify(expected) || [ready, in_flight, delayed, dead, done]
  })
  await inHands(2)
  await queue([2, 2, 0, 0, 0])
  await check('workbench')
  await picture('workbench')
  await button('Done', jobs.first()).click()
  await queue([1, 2, 0, 0, 1])
  await button('Never', jobs.first()).click()
  await queue([0, 2, 0, 1, 1])
  await jobs.first().getByLabel('Give back for so many seconds').fill('3600')
  await button('Give back', jobs.first()).click()
  await queue([0, 1, 1, 1, 1])
  await button('Busy', jobs.first()).click()
  await inHands(0)
  await until('it is not counted as a failure', async () => (await queueOf('demo')).totals.busy === 1)
  await button('Leave').click()
  await until('nobody takes part', async () => (await queueOf('demo')).members === 0)
  await button('Disconnect').click()
  await page.getByText('Disconnected.').waitFor()
}

async function logs() {
  await go('Logs and traces')
  await page.locator('.log li').first().waitFor()
  const { level } = await api('log/level')
  await button('Change the level…').click()
  await answer({ Level: 'debug' }, 'Change')
  assert.equal((await api('log/level')).level, 'debug')
  await api('log/level', 'PUT', { level })
  await page.getByLabel('With the text').fill('first admin')
  await until('only such lines are shown', async () => (await page.locator('.log li').allTextContents()).every((line) => line.includes('first admin')))
  await page.getByLabel('With the text').fill('')
  await button('Hold').click()
  await page.getByRole('button', { name: /^Go on/ }).click()
  await check('logs')
}

async function traces(client) {
  await go('Logs and traces')
  await button('New trace…').click()
  await check('trace-new')
  await answer({ Which: 'walker' }, 'Record')
  await heading('Trace of client walker').waitFor()
  await client.publishAsync('room/9/temperature', '1', { qos: 1 })
  await page.getByRole('cell', { name: 'PUBLISH', exact: true }).first().waitFor()
  await page.getByRole('cell', { name: 'PUBACK', exact: true }).first().waitFor()
  await check('trace')
  const download = page.waitForEvent('download')
  await page.getByRole('link', { name: 'Download' }).click()
  const lines = fs.readFileSync(await (await download).path(), 'utf8').trim().split('\n')
  assert(lines.map((line) => JSON.parse(line)).some(({ packet }) => packet === 'PUBLISH'))
  await button('Stop').click()
  await until('it has ended', async () => page.getByRole('button', { name: 'Stop' }).isDisabled())
  await button('Delete…').click()
  await answer({}, 'Delete')
  await heading('Logs and traces').waitFor()
  assert.deepEqual((await api('traces')).items, [])
}

async function access() {
  await go('Access')
  await page.getByLabel('Client identifier').fill('sensor-7')
  await page.getByLabel('Topic, filter or queue').fill('room/1/temperature')
  await button('Ask').click()
  await page.getByText('allowed', { exact: true }).waitFor()
  await check('access')
  await button('Ban…').click()
  await answer({ Which: '192.0.2.7' }, 'Ban')
  await page.getByRole('rowheader', { name: 'address 192.0.2.7' }).waitFor()
  assert.equal((await api('bans')).items.length, 1)
  await button('Lift').click()
  await page.getByText('Nobody is banned.').waitFor()
}

async function settings() {
  await go('Settings')
  const row = (name) => page.getByRole('row').filter({ has: page.getByRole('rowheader', { name, exact: true }) })
  await button('New user…').click()
  await answer({ Name: VIEWER.name, Password: VIEWER.password, Role: 'viewer' }, 'Add')
  await row(VIEWER.name).waitFor()
  await button('New user…').click()
  await answer({ Name: 'otto', Password: 'somebody for a moment', Role: 'viewer' }, 'Add')
  await button('Change…', row('otto')).click()
  await answer({ Role: 'operator' }, 'Change')
  await row('otto').getByText('operator').waitFor()
  await button('Remove…', row('otto')).click()
  await answer({}, 'Remove')
  await row('otto').waitFor({ state: 'detached' })

  await button('New token…').click()
  await dialog().getByLabel('What it is for').fill('monitoring')
  await button('Make', dialog()).click()
  const token = await dialog().locator('pre').textContent()
  const asked = await fetch(new URL('api/v1/status', base), { headers: { Authorization: `Bearer ${token}` } })
  assert.equal(asked.status, 200)
  await button('Close', dialog()).click()
  await button('Revoke…', row('monitoring')).click()
  await answer({}, 'Revoke')
  const again = await fetch(new URL('api/v1/status', base), { headers: { Authorization: `Bearer ${token}` } })
  assert.equal(again.status, 401)

  await page.getByPlaceholder('limits.').fill('inflight_max')
  await row('limits.inflight_max').waitFor()
  const { items } = await api('config?limit=1000')
  const { value } = items.find(({ key }) => key === 'limits.inflight_max')
  assert.equal(await row('limits.inflight_max').getByRole('cell').first().textContent(), String(value))
  await page.getByPlaceholder('limits.').fill('')
  await check('settings')
  await button('Reload the configuration…').click()
  await button('Reload', dialog()).click()
  await page.getByRole('dialog', { name: 'Reloaded' }).waitFor()
  await button('Close', page.getByRole('dialog', { name: 'Reloaded' })).click()
}

// What a viewer may not do is not offered.
async function viewer() {
  await button('Log out').click()
  await logIn(VIEWER)
  await heading('Overview').waitFor()
  await go('Queues')
  await page.getByRole('link', { name: 'mail', exact: true }).click()
  await heading('mail').waitFor()
  for (const name of ['Pause…', 'Purge…', 'Delete…', 'Move…', 'Redrive…', 'Change…']) assert.equal(await button(name).count(), 0, name)
  await check('queue-viewer')
  await go('Queues')
  assert.equal(await button('New queue…').count(), 0)
  await go('Settings')
  for (const name of ['New user…', 'New token…', 'Reload the configuration…']) assert.equal(await button(name).count(), 0, name)
}

// By hand: the choice of colours holds through a reload; the menu of a telephone; the skip link; and
// a page that is none.
async function aroundThePages() {
  await page.getByLabel('Colours').selectOption('dark')
  await page.reload()
  await heading('Settings').waitFor()
  assert.equal(await page.evaluate(() => getComputedStyle(document.documentElement).colorScheme), 'dark')
  await page.getByLabel('Colours').selectOption('')
  await page.keyboard.press('Tab')
  await page.evaluate(() => document.querySelector('.skip').focus())
  await page.keyboard.press('Enter')
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main')
  await page.setViewportSize(NARROW)
  await button('Menu').click()
  await check('menu')
  await page.setViewportSize(NARROW)
  await page.getByRole('link', { name: 'Overview', exact: true }).click()
  await heading('Overview').waitFor()
  await page.setViewportSize(WIDE)
  await page.goto(new URL('#/nowhere', base).href)
  await heading('Not found').waitFor()
}

async function walk() {
  const client = await mqtt.connectAsync(`mqtt://${mqttAddress}`, { protocolVersion: 5, clientId: 'walker', clean: false, properties: { sessionExpiryInterval: 600 }, reconnectPeriod: 50 })
  // What it is told at its end is no error of this script.
  client.on('error', () => {})
  const steps = [
    [firstLogin],
    [overview],
    [loginsAreChecked],
    [() => queues(client), 'queues'],
    [oneQueue],
    [() => clients(client), 'clients'],
    [() => topics(client), 'topics'],
    [workbench],
    [logs],
    [() => traces(client), 'traces'],
    [access],
    [settings],
    [() => pictureThem(client), 'pictures'],
    [viewer],
    [aroundThePages],
  ]
  for (const [step, name = step.name] of steps) {
    const since = Date.now()
    await step()
    console.log(`${name}: ${Date.now() - since} ms`)
  }
  await client.endAsync()
}

async function main() {
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
      // What stands in for the program's files has no address, and the broker is on this machine.
      '--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets',
    ],
  })
  try {
    const context = await browser.newContext({ viewport: WIDE, colorScheme: 'light', reducedMotion: 'reduce', bypassCSP: false })
    context.setDefaultTimeout(DEADLINE)
    await context.addInitScript(axe)
    await context.addInitScript(() => {
      addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => console.error(`CSP: ${violatedDirective} ${blockedURI}`))
    })
    const files = process.env.DASHBOARD_FILES
    if (files) {
      await context.route(/\/assets\//, (route) => {
        const [, file] = new URL(route.request().url()).pathname.match(/\/assets\/[^/]+\/(.*)/)
        return route.fulfill({ path: path.join(files, file), headers: { 'Content-Type': file.endsWith('.js') ? 'text/javascript' : file.endsWith('.css') ? 'text/css' : 'image/svg+xml' } })
      })
    }
    page = await context.newPage()
    page.on('console', (message) => {
      // That nobody is logged in yet is how the page finds out.
      if (message.type() === 'error' && !/\/me$/.test(message.location().url)) complaints.push(`console: ${message.text()} (${message.location().url})`)
    })
    page.on('pageerror', (error) => complaints.push(`error: ${error.stack}`))
    page.on('request', (request) => {
      const { protocol, host } = new URL(request.url())
      if (host !== base.host && protocol !== 'data:' && protocol !== 'blob:') complaints.push(`a request to another origin: ${request.url()}`)
    })
    page.on('websocket', (socket) => {
      if (new URL(socket.url()).host !== base.host) complaints.push(`a WebSocket to another origin: ${socket.url()}`)
    })
    await walk().catch(async (error) => {
      await page.screenshot({ path: path.join(pictures, 'failed.png'), fullPage: true })
      throw error
    })
    assert.deepEqual(complaints, [])
  } finally {
    await browser.close()
  }
}

main().catch((error) => {
  console.error(error)
  console.error(complaints.join('\n'))
  process.exit(1)
})
