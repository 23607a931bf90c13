//! The gate over one real member, with its disk in memory.

use gateway::keyspace::auth::{AuthChange, AuthChanges};
use gateway::keyspace::command::{Nodes, Turn};
use gateway::keyspace::node::{Action, NodeWrite};
use gateway::keyspace::{AccessEntry, Cause, Command, Identity, NodeOp, Permissions, Refusal};
use gateway::{Gate, Hub, Limits, Principal, SessionKey};
use replica::{Config, Handle};
use std::time::Duration;

/// A member that leads nobody, and its gate. Stops when it is told to.
struct Member {
    replica: Handle,
    gate: Gate,
}

impl Member {
    async fn start(limits: Limits) -> anyhow::Result<Member> {
        let config = Config {
            heartbeat: Duration::from_millis(10),
            election: Duration::from_millis(100),
            ..Config::default()
        };
        let hub = Hub::new();
        let replica = replica::start_in_memory(config, hub.sink()).await?;
        let gate = Gate::new(replica.clone(), hub, limits);
        Ok(Member { replica, gate })
    }

    /// Whether one write after the other was accepted; they are all under way before one is
    /// waited for.
    async fn write(
        &self,
        writes: impl IntoIterator<Item = Command>,
    ) -> anyhow::Result<Vec<Result<(), Refusal>>> {
        let by = Principal::Anonymous;
        let calls = writes.into_iter();
        let calls: Vec<_> = calls
            .map(|write| self.gate.submit(&by, vec![write]))
            .collect();
        let mut outcomes = Vec::new();
        for call in calls {
            let answered = call.await?.into_iter();
            outcomes.extend(answered.map(|answered| answered.outcome.map(drop)));
        }
        Ok(outcomes)
    }
}

fn turn(session: &SessionKey, seq: u64, action: Action) -> Command {
    Command::Nodes(Nodes {
        turn: Some(Turn {
            lease: session.id,
            attachment: session.attachment,
            seq,
        }),
        ops: vec![NodeOp {
            path: "/a".into(),
            tests: Vec::new(),
            action,
            cause: Cause::Set,
        }],
        ..Nodes::default()
    })
}

fn write(len_bytes: usize) -> Action {
    Action::Write(NodeWrite::new(vec![0; len_bytes]))
}

#[tokio::test]
async fn a_session_goes_on_through_another_connection() -> anyhow::Result<()> {
    let member = Member::start(Limits::default()).await?;
    let gate = &member.gate;
    let first = gate.open_session(60_000).await?;
    assert!(first.id.0 > 0);
    let stranger = gate.resume_session(first.id, [0; 16], 60_000).await?;
    assert!(stranger.is_none());
    let watcher = gate.watch_nodes(&first);
    let resumed = gate
        .resume_session(first.id, first.password, 30_000)
        .await?;
    let second = resumed.ok_or_else(|| anyhow::anyhow!("the session lives"))?;
    assert_eq!(watcher.dismissed().await, gateway::nodes::Gone::Moved);
    let writes = [turn(&first, 0, write(1)), turn(&second, 0, write(1))];
    let outcomes = member.write(writes).await?;
    assert_eq!(outcomes, [Err(Refusal::Moved), Ok(())]);
    let lease = gate.reader().lease(first.id);
    assert_eq!(lease.map(|lease| lease.ttl_ms), Some(30_000));
    member.replica.stop().await;
    Ok(())
}

/// What goes over the quota is refused when its turn has come, so that the writes behind it, which
/// may free room, are not out of turn.
#[tokio::test]
async fn writes_over_the_quota_are_refused_in_their_turn() -> anyhow::Result<()> {
    let member = Member::start(Limits {
        space_bytes_max: Some(64 << 10),
        ..Limits::default()
    })
    .await?;
    let session = member.gate.open_session(60_000).await?;
    let remove = Action::Remove { recursive: false };
    let entry = AccessEntry {
        permissions: Permissions::ALL,
        who: Identity::new("digest", "ann:x="),
    };
    let actions = [
        write(1_000),
        write(100_000),
        write(1_000),
        Action::SetAcl(Some([entry].into())),
        Action::SetAcl(None),
        remove,
    ];
    let turns = actions.into_iter().enumerate();
    let writes = turns.map(|(seq, action)| turn(&session, seq as u64, action));
    let outcomes = member.write(writes).await?;
    let full = gateway::keyspace::command::Alarm::NoSpace;
    let refused = || Err(Refusal::Alarmed(full));
    let expected = [Ok(()), refused(), refused(), refused(), Ok(()), Ok(())];
    assert_eq!(outcomes, expected);
    member.replica.stop().await;
    Ok(())
}

/// What was proven once is remembered, but not beyond the password that it was proven for.
#[tokio::test]
async fn a_user_logs_in_with_the_password_of_now() -> anyhow::Result<()> {
    let member = Member::start(Limits {
        bcrypt_cost: 4,
        ..Limits::default()
    })
    .await?;
    let gate = &member.gate;
    let hash = async |password: &str| gate.hash_password(password.into()).await;
    let change = async |change| {
        let changes = AuthChanges {
            changes: vec![change],
            ..AuthChanges::default()
        };
        gate.propose(&Principal::System, Command::Auth(changes))
            .await
    };
    let logs_in = async |user: &str, password: &str| gate.log_in(user, password.as_bytes()).await;
    let added = |user: &str, password| AuthChange::AddUser {
        user: user.into(),
        password,
    };
    change(added("ann", Some(hash("old").await?))).await?;
    change(added("bob", None)).await?;
    for _ in 0..2 {
        let ann = Some(Principal::user("ann"));
        assert_eq!(logs_in("ann", "old").await?, ann);
        assert_eq!(logs_in("ann", "new").await?, None);
    }
    assert_eq!(logs_in("bob", "").await?, None);
    assert_eq!(logs_in("eve", "old").await?, None);
    change(AuthChange::SetPassword {
        user: "ann".into(),
        password: hash("new").await?,
    })
    .await?;
    assert_eq!(logs_in("ann", "old").await?, None);
    assert!(logs_in("ann", "new").await?.is_some());
    change(AuthChange::RemoveUser("ann".into())).await?;
    assert_eq!(logs_in("ann", "new").await?, None);
    member.replica.stop().await;
    Ok(())
}
