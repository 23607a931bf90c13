// Does with Node's etcd3 what services do: configuration, discovery, a lock and an election.
'use strict';

const assert = require('node:assert');
const { once } = require('node:events');
const { Etcd3, EtcdLockFailedError } = require('etcd3');

const hosts = process.env.ENDPOINTS.split(',');
const DEADLINE_MS = 30000;

async function configuration(client) {
  await client.put('node/config/level').value('info');
  assert.strictEqual(await client.get('node/config/level').string(), 'info');
  const watcher = await client.watch().prefix('node/config/').create();
  const put = once(watcher, 'put');
  await client.put('node/config/level').value('warn');
  const [change] = await put;
  assert.strictEqual(change.value.toString(), 'warn');
  const gone = once(watcher, 'delete');
  await client.delete().key('node/config/level');
  await gone;
  await watcher.cancel();
}

async function transaction(client) {
  await client.put('node/counter').value('1');
  const swap = (before, after) =>
    client
      .if('node/counter', 'Value', '==', before)
      .then(client.put('node/counter').value(after))
      .else(client.get('node/counter'))
      .commit();
  assert.strictEqual((await swap('1', '2')).succeeded, true);
  assert.strictEqual((await swap('1', '3')).succeeded, false);
  assert.strictEqual(await client.get('node/counter').number(), 2);
  await client.delete().prefix('node/counter');
}

async function discovery(client) {
  const lease = client.lease(5);
  await lease.put('node/services/web/1').value('10.0.0.1:80');
  await lease.keepaliveOnce();
  assert.deepStrictEqual(await client.getAll().prefix('node/services/web/').strings(), {
    'node/services/web/1': '10.0.0.1:80',
  });
  await lease.revoke();
  assert.deepStrictEqual(await client.getAll().prefix('node/services/web/').keys(), []);
}

async function lock(client) {
  const lock = client.lock('node/lock');
  await lock.ttl(10).acquire();
  await assert.rejects(client.lock('node/lock').acquire(), EtcdLockFailedError);
  await lock.release();
  let held = false;
  await client.lock('node/lock').do(async () => { held = true; });
  assert.ok(held);
}

async function election(client) {
  const one = client.election('node/election').campaign('one');
  await once(one, 'elected');
  const observer = await client.election('node/election').observe();
  assert.strictEqual(observer.leader() ?? (await once(observer, 'change'))[0], 'one');
  const two = client.election('node/election').campaign('two');
  const elected = once(two, 'elected');
  await one.resign();
  await elected;
  assert.strictEqual(await client.election('node/election').leader(), 'two');
  await two.resign();
  await observer.cancel();
}

async function main() {
  let passed = 0;
  let failed = 0;
  for (const job of [configuration, transaction, discovery, lock, election]) {
    const client = new Etcd3({ hosts });
    const deadline = new Promise((_, reject) => {
      setTimeout(() => reject(new Error('no end in time')), DEADLINE_MS).unref();
    });
    try {
      await Promise.race([job(client), deadline]);
      passed += 1;
    } catch (error) {
      console.log(`FAIL ${job.name}:`, error);
      failed += 1;
    }
    client.close();
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed > 0 ? 1 : 0);
}

main();
