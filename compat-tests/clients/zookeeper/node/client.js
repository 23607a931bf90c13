// Does with node-zookeeper-client what services do: configuration, discovery, a lock, an election.
'use strict';

const assert = require('node:assert');
const { once } = require('node:events');
const { promisify } = require('node:util');
const zookeeper = require('node-zookeeper-client');

const { CreateMode, Event, Exception } = zookeeper;
const DEADLINE_MS = 30000;
const CONTENDERS = 4;

/** A connected client whose operations answer promises; watchers stay callbacks. */
async function connected() {
  const client = zookeeper.createClient(process.env.ZOOKEEPER, { sessionTimeout: 10000 });
  const ready = once(client, 'connected');
  client.connect();
  await ready;
  const operations = ['create', 'remove', 'exists', 'getChildren', 'getData', 'setData',
    'getACL', 'setACL', 'mkdirp', 'removeRecursive'];
  const session = { client, close: () => client.close() };
  for (const operation of operations) {
    session[operation] = (...values) => new Promise((resolve, reject) => {
      client[operation](...values, (error, ...replies) =>
        (error ? reject(error) : resolve(replies.length > 1 ? replies : replies[0])));
    });
  }
  return session;
}

/** A watcher, and the promise of its event. */
function watch() {
  let watcher;
  const event = new Promise((resolve) => { watcher = resolve; });
  return { watcher, event };
}

const fails = (promise, code) =>
  assert.rejects(promise, (error) => error.getCode?.() === Exception[code]);

async function configuration(zk) {
  await zk.mkdirp('/node/config');
  await zk.create('/node/config/level', Buffer.from('info'));
  const changed = watch();
  const [data, stat] = await zk.getData('/node/config/level', changed.watcher);
  assert.strictEqual(data.toString(), 'info');
  const after = await zk.setData('/node/config/level', Buffer.from('warn'), stat.version);
  assert.strictEqual(after.version, stat.version + 1);
  assert.strictEqual((await changed.event).getType(), Event.NODE_DATA_CHANGED);
  await fails(zk.setData('/node/config/level', Buffer.from('error'), stat.version), 'BAD_VERSION');
  const gone = watch();
  await zk.exists('/node/config/level', gone.watcher);
  await zk.remove('/node/config/level');
  assert.strictEqual((await gone.event).getType(), Event.NODE_DELETED);
  assert.strictEqual(await zk.exists('/node/config/level'), null);
}

async function transaction(zk) {
  const commit = (steps) => promisify(steps.commit.bind(steps))();
  await zk.create('/node/counter', Buffer.from('1'));
  const swap = zk.client.transaction().check('/node/counter')
    .setData('/node/counter', Buffer.from('2')).create('/node/counter/log');
  assert.strictEqual((await commit(swap)).length, 3);
  const stale = zk.client.transaction().remove('/node/counter/log').check('/node/counter', 7);
  await fails(commit(stale), 'BAD_VERSION');
  assert.deepStrictEqual((await zk.getChildren('/node/counter'))[0], ['log']);
}

async function discovery(zk) {
  await zk.mkdirp('/node/services');
  const service = await connected();
  const found = watch();
  assert.deepStrictEqual((await zk.getChildren('/node/services', found.watcher))[0], []);
  const path = await service.create('/node/services/web', Buffer.from('10.0.0.1:80'),
    CreateMode.EPHEMERAL);
  assert.strictEqual((await found.event).getType(), Event.NODE_CHILDREN_CHANGED);
  const [address, stat] = await zk.getData(path);
  assert.strictEqual(address.toString(), '10.0.0.1:80');
  assert.deepStrictEqual(stat.ephemeralOwner, service.client.getSessionId());
  const lost = watch();
  await zk.exists(path, lost.watcher);
  service.close();
  assert.strictEqual((await lost.event).getType(), Event.NODE_DELETED);
}

async function access(zk) {
  zk.client.addAuthInfo('digest', Buffer.from('owner:secret'));
  await zk.create('/node/secret', Buffer.from('x'), zookeeper.ACL.CREATOR_ALL_ACL);
  const stranger = await connected();
  // Nothing in this client flushes a member, so it is asked until it knows the node.
  while (!(await stranger.exists('/node').then(() => stranger.getACL('/node/secret'))
    .catch((error) => error.getCode() === Exception.NO_AUTH)));
  await fails(stranger.getData('/node/secret'), 'NO_AUTH');
  stranger.close();
}

/** Creates a numbered node and awaits that none is before it; answers its path. */
async function queueUp(zk, directory) {
  const path = await zk.create(`${directory}/n-`, CreateMode.EPHEMERAL_SEQUENTIAL);
  const own = path.slice(directory.length + 1);
  for (;;) {
    const [names] = await zk.getChildren(directory);
    const before = names.sort().filter((name) => name < own).pop();
    if (before === undefined) return path;
    const turn = watch();
    if (await zk.exists(`${directory}/${before}`, turn.watcher)) await turn.event;
  }
}

async function lock(zk) {
  await zk.mkdirp('/node/lock');
  let inside = 0;
  let entries = 0;
  await Promise.all(Array.from({ length: CONTENDERS }, async () => {
    const contender = await connected();
    const path = await queueUp(contender, '/node/lock');
    inside += 1;
    assert.strictEqual(inside, 1, 'two in the lock');
    await contender.exists('/node/lock');
    inside -= 1;
    entries += 1;
    await contender.remove(path);
    contender.close();
  }));
  assert.strictEqual(entries, CONTENDERS);
}

async function election(zk) {
  await zk.mkdirp('/node/election');
  const [one, two] = [await connected(), await connected()];
  await queueUp(one, '/node/election');
  let elected = false;
  const second = queueUp(two, '/node/election').then(() => { elected = true; });
  const candidates = async () => (await two.getChildren('/node/election'))[0].length;
  while (await candidates() < 2);
  assert.ok(!elected, 'two leaders');
  one.close();
  await second;
  two.close();
}

async function main() {
  let passed = 0;
  let failed = 0;
  for (const job of [configuration, transaction, discovery, access, lock, election]) {
    const deadline = new Promise((_, reject) => {
      setTimeout(() => reject(new Error('no end in time')), DEADLINE_MS).unref();
    });
    const session = connected();
    try {
      await Promise.race([session.then(job), deadline]);
      passed += 1;
    } catch (error) {
      console.log(`FAIL ${job.name}:`, error);
      failed += 1;
    }
    session.then((zk) => zk.close(), () => {});
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed > 0 ? 1 : 0);
}

main();
