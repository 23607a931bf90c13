//! What becomes of each request of a session.

use crate::ensemble::Change;
use crate::errors::{Code, Failure};
use crate::jute::Write as _;
use crate::ops::{self, Caller, Steps};
use crate::record::{Bad, Header, Read, Reconfig, Request, SetWatches, Write};
use crate::session::{Over, Session};
use crate::stat::Stat;
use crate::{acl, ensemble, read, system};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gateway::keyspace::access::Identity;
use gateway::keyspace::command::{Nodes, Turn};
use gateway::keyspace::node::NodeAnswer;
use gateway::keyspace::{Command, Outcome, Refusal, Revision};
use gateway::{Answered, Description, Error, MemberError, NewMember};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Answers that wait for others before they are written.
const ANSWERS_BYTES_MAX: usize = 1 << 20;
/// What a client's identities may take: they travel with each of its writes.
const IDENTITIES_BYTES_MAX: usize = 8 << 10;
/// What writes may take, with what travels along, before those after them have to wait for their
/// answers: all that are handed over together go into one entry of the log.
const RUN_BYTES_MAX: usize = 1 << 20;
/// How long members must have been connected before others come or go: to ZooKeeper it is enough that
/// a quorum is.
const CONNECTED_FOR: Duration = Duration::ZERO;
/// The xid that pings are answered with, whatever they came with.
const PING_XID: i32 = -2;

/// A request, and the frames it lies in.
pub struct Asked<'f> {
    pub frames: &'f Bytes,
    /// How long its own is.
    pub len_bytes: usize,
    pub header: Header,
    pub request: Request<'f>,
}

impl<'f> Asked<'f> {
    /// The changes asked for; none if it asks for something else.
    fn writes(&self) -> Option<&[Write<'f>]> {
        match &self.request {
            Request::Write(write) => Some(slice::from_ref(write)),
            Request::Multi(writes) => Some(writes),
            Request::Read(_)
            | Request::MultiRead(_)
            | Request::GetAllChildrenNumber { .. }
            | Request::Sync { .. }
            | Request::SetWatches(_)
            | Request::AddWatch { .. }
            | Request::CheckWatches { .. }
            | Request::RemoveWatches { .. }
            | Request::Auth { .. }
            | Request::Sasl { .. }
            | Request::Reconfig(_)
            | Request::WhoAmI
            | Request::Ping
            | Request::CloseSession => None,
        }
    }

    fn is_multi(&self) -> bool {
        matches!(self.request, Request::Multi(_))
    }

    fn shows_who_asks(&self) -> bool {
        matches!(self.request, Request::Auth { .. } | Request::Sasl { .. })
    }
}

/// A parsed frame.
pub type Parsed<'f> = Result<Asked<'f>, Bad>;

/// What was submitted of a request that changes something.
struct Plan {
    /// How many; a multi of nothing is not submitted.
    steps: usize,
    doomed: Option<Code>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<'_, S> {
    /// Answers requests, in their order.
    pub(crate) async fn process(&mut self, mut rest: &[Parsed<'_>]) -> Result<(), Over> {
        while let Some((first, others)) = rest.split_first() {
            self.admit(first)?;
            let writes: Vec<(&Asked<'_>, &[Write<'_>])> = rest
                .iter()
                .map_while(|parsed| {
                    let asked = parsed.as_ref().ok()?;
                    Some((asked, asked.writes()?))
                })
                .collect();
            if writes.is_empty() {
                let before = self.replies.len_bytes();
                self.single(first).await?;
                rest = others;
                read::take_turns(self.replies.len_bytes().saturating_sub(before)).await;
            } else {
                let done = self.write(&writes).await?;
                rest = &rest[done..];
            }
            if self.replies.len_bytes() > ANSWERS_BYTES_MAX {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Cuts off who has not shown who it is where that is required, unless it is about to.
    fn admit(&mut self, parsed: &Parsed<'_>) -> Result<(), Over> {
        let schemes = &self.shared.options.enforced_schemes;
        let is_known = |id: &Identity| schemes.iter().any(|scheme| **scheme == *id.scheme);
        if schemes.is_empty() || self.ids.iter().any(is_known) {
            return Ok(());
        }
        let header = match parsed {
            Ok(asked) if asked.shows_who_asks() => return Ok(()),
            Ok(asked) => asked.header,
            Err(Bad::Unanswerable) => return Ok(()),
            Err(Bad::Kind(header) | Bad::Body(header)) => *header,
        };
        let code = Some(Code::AuthRequired);
        self.replies.aside(header.xid, 0, code, |_| {});
        Err(Over::AfterAnswers)
    }

    /// Does changes that stand next to each other, as many as may be handed over together; answers
    /// how many.
    async fn write(&mut self, run: &[(&Asked<'_>, &[Write<'_>])]) -> Result<usize, Over> {
        if self.read_only {
            for (asked, _) in run {
                self.refuse_now(asked.header.xid, Code::NotReadOnly);
            }
            return Ok(run.len());
        }
        let ids_bytes = acl::bytes_of(&*self.ids);
        let mut bytes = 0;
        let mut commands = Vec::with_capacity(run.len());
        let mut plans = Vec::with_capacity(run.len());
        for (asked, writes) in run {
            if bytes > RUN_BYTES_MAX {
                break;
            }
            let steps = Steps::of(writes, asked.frames, self.caller());
            bytes += asked.len_bytes + steps.list_bytes + ids_bytes;
            let plan = Plan {
                steps: steps.ops.len(),
                doomed: steps.doomed,
            };
            if plan.steps > 0 {
                commands.push(self.command(steps));
            }
            plans.push(plan);
        }
        let mut answers = Vec::new();
        if !commands.is_empty() {
            let submitted = self.shared.gate.submit(&self.principal, commands);
            answers = submitted.await?;
        }
        let mut answers = answers.into_iter();
        for ((asked, writes), plan) in run.iter().zip(&plans) {
            if plan.steps == 0 {
                let at = self.reader().revision();
                self.replies.answer(asked.header.xid, at, ops::end);
                continue;
            }
            let answered = answers.next().ok_or(Over::AfterAnswers)?;
            self.answer_write(asked, writes, plan, answered)?;
        }
        Ok(plans.len())
    }

    /// The connection's next turn.
    fn take_turn(&mut self) -> Turn {
        let seq = self.turn;
        self.turn += 1;
        Turn {
            lease: self.key.id,
            attachment: self.key.attachment,
            seq,
        }
    }

    fn command(&mut self, steps: Steps) -> Command {
        Command::Nodes(Nodes {
            turn: Some(self.take_turn()),
            by: (!self.may_everything()).then(|| Arc::clone(&self.ids)),
            ops: steps.ops,
            ..Nodes::default()
        })
    }

    fn answer_write(
        &mut self,
        asked: &Asked<'_>,
        writes: &[Write<'_>],
        plan: &Plan,
        answered: Answered,
    ) -> Result<(), Over> {
        let xid = asked.header.xid;
        let Answered {
            revision, outcome, ..
        } = answered;
        let refusal = match outcome {
            Ok(Outcome::Nodes(answers)) => {
                let mut replies = std::mem::take(&mut self.replies);
                let desk = self.desk();
                let (mount, complete) = (desk.mount, |stat: &mut Stat| desk.show_root(stat));
                replies.answer(xid, revision, |out| match (&asked.request, &answers[..]) {
                    (Request::Write(write), [answer]) => {
                        ops::encode_write(out, write, answer, mount, complete);
                    }
                    (_, answers) => ops::encode_multi(out, writes, answers, mount, complete),
                });
                self.replies = replies;
                self.warn_of_quotas(&answers);
                return Ok(());
            }
            Ok(Outcome::Txn(_) | Outcome::Done | Outcome::Ended(_)) => {
                unreachable!("steps at nodes are answered as such")
            }
            Err(refusal) => refusal,
        };
        match Failure::from(refusal) {
            Failure::Answer(code, Some(step)) => {
                let code = ops::code_of(step, code, plan.steps, plan.doomed);
                self.refuse_write(asked, writes.len(), revision, step, code);
                Ok(())
            }
            Failure::Answer(code, None) => {
                self.replies.error(xid, revision, code);
                Ok(())
            }
            Failure::Expired => {
                self.replies.error(xid, revision, Code::SessionExpired);
                Err(Over::AfterAnswers)
            }
            Failure::Lost => Err(Over::AfterAnswers),
        }
    }

    /// Logs that what was written is beyond a quota, now and then.
    fn warn_of_quotas(&self, answers: &[NodeAnswer]) {
        let reader = self.reader();
        for answer in answers.iter().filter(|answer| answer.node.is_some()) {
            let Some((of, tally)) = reader.counted(&answer.path) else {
                continue;
            };
            let mount = &self.shared.options.mount;
            let quota = system::quota_at(reader, mount, &of);
            if let Some(limit) = quota.exceeded(tally)
                && self.shared.stats.may_warn()
            {
                let path = String::from_utf8_lossy(&of);
                let (count, bytes) = (tally.nodes, tally.bytes);
                tracing::warn!(%path, limit, count, bytes, "quota exceeded");
            }
        }
    }

    fn refuse_write(
        &mut self,
        asked: &Asked<'_>,
        parts: usize,
        at: Revision,
        step: usize,
        code: Code,
    ) {
        let xid = asked.header.xid;
        if asked.is_multi() {
            self.replies.answer(xid, at, |out| {
                ops::encode_failed_multi(out, parts, step, code);
            });
        } else {
            self.replies.error(xid, at, code);
        }
    }

    /// Does what is no change.
    async fn single(&mut self, parsed: &Parsed<'_>) -> Result<(), Over> {
        let asked = match parsed {
            Ok(asked) => asked,
            Err(bad) => return self.refuse(*bad),
        };
        let xid = asked.header.xid;
        match &asked.request {
            Request::Write(_) | Request::Multi(_) => {
                unreachable!("changes are done with those next to them")
            }
            Request::Read(read) => {
                self.tell_of_members(slice::from_ref(read)).await?;
                self.read_one(xid, *read).await;
            }
            Request::MultiRead(reads) => {
                self.tell_of_members(reads).await?;
                self.read_several(xid, reads).await;
            }
            Request::GetAllChildrenNumber { path } => self.count(xid, path).await,
            Request::Sync { .. } | Request::Reconfig(_) if self.read_only => {
                self.refuse_now(xid, Code::NotReadOnly);
            }
            Request::Sync { path } => return self.sync(xid, path).await,
            Request::SetWatches(watches) => return self.set_watches(xid, watches),
            Request::AddWatch { path, mode } => match self.desk().add_watch(path, *mode) {
                // The body is an error code of its own.
                Ok(at) => self.replies.answer(xid, at, |out| out.int(0)),
                Err(code) => self.refuse_now(xid, code),
            },
            Request::CheckWatches { path, kind } => {
                let checked = self.desk().check_watches(path, *kind);
                self.done(xid, checked);
            }
            Request::RemoveWatches { path, kind } => {
                let removed = self.desk().remove_watches(path, *kind);
                self.done(xid, removed);
            }
            Request::Auth { scheme, token } => {
                return self.authenticate(xid, scheme, token).await;
            }
            Request::Sasl { token } => return self.log_in(xid, token),
            Request::Reconfig(asked) => return self.reconfigure(xid, asked).await,
            Request::WhoAmI => self.who_am_i(xid),
            Request::Ping => self.done(PING_XID, Ok(())),
            Request::CloseSession => return self.close(xid).await,
        }
        Ok(())
    }

    /// Sends the events there are before what comes next is answered, whatever revision that shows: the
    /// members change without a revision.
    async fn tell(&mut self) -> Result<(), Over> {
        match self.watcher.has_events() {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// The same where one of these shows the members.
    async fn tell_of_members(&mut self, reads: &[Read<'_>]) -> Result<(), Over> {
        match reads.iter().any(|read| read.path() == Some(system::CONFIG)) {
            true => self.tell().await,
            false => Ok(()),
        }
    }

    async fn read_one(&mut self, xid: i32, read: Read<'_>) {
        let (at, seen) = self.desk().read(read).await;
        match seen {
            Ok(seen) => self.replies.answer(xid, at, |out| seen.encode(out)),
            Err(code) => self.replies.error(xid, at, code),
        }
    }

    async fn read_several(&mut self, xid: i32, reads: &[Read<'_>]) {
        match self.desk().read_all(reads).await {
            Ok((at, body)) => self
                .replies
                .answer(xid, at, |out| out.extend_from_slice(&body)),
            Err(code) => self.refuse_now(xid, code),
        }
    }

    async fn sync(&mut self, xid: i32, path: &str) -> Result<(), Over> {
        let linearized = self.shared.gate.linearize().await;
        linearized.map_err(|_| Over::AfterAnswers)?;
        self.tell().await?;
        let at = self.reader().revision();
        self.replies.answer(xid, at, |out| {
            out.text(path);
        });
        Ok(())
    }

    fn set_watches(&mut self, xid: i32, watches: &SetWatches<'_>) -> Result<(), Over> {
        // An error to this is overlooked by clients; on its next connection this one begins without
        // any watches.
        if !self.watcher.has_room(&[]) {
            return Err(Over::AfterAnswers);
        }
        let mut replies = std::mem::take(&mut self.replies);
        let at = self.desk().set_watches(watches, &mut replies);
        replies.answer(xid, at, |_| {});
        self.replies = replies;
        Ok(())
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            session: self.key.id,
            ids: &self.ids,
            options: &self.shared.options,
        }
    }

    /// Answers what is no request.
    fn refuse(&mut self, bad: Bad) -> Result<(), Over> {
        match bad {
            Bad::Unanswerable => Err(Over::AfterAnswers),
            Bad::Kind(header) => {
                // As ZooKeeper answers what it does not look at.
                self.replies
                    .aside(header.xid, -1, Some(Code::Unimplemented), |_| {});
                Err(Over::AfterAnswers)
            }
            Bad::Body(header) => {
                self.refuse_now(header.xid, Code::MarshallingError);
                Ok(())
            }
        }
    }

    fn refuse_now(&mut self, xid: i32, code: Code) {
        let at = self.reader().revision();
        self.replies.error(xid, at, code);
    }

    /// Answers that it is done, or why not.
    fn done(&mut self, xid: i32, result: Result<(), Code>) {
        let at = self.reader().revision();
        match result {
            Ok(()) => self.replies.answer(xid, at, |_| {}),
            Err(code) => self.replies.error(xid, at, code),
        }
    }

    /// Adds identities; a proof that is none ends the connection. Once authentication is on, a digest
    /// of a user's name has to have its password, and logs it in.
    async fn authenticate(&mut self, xid: i32, scheme: &str, token: &[u8]) -> Result<(), Over> {
        let is_user = scheme != "digest" || self.log_in_user(token).await?;
        let shown = acl::authenticate(scheme, token, &self.inborn, &self.shared.options);
        let Some(shown) = shown.filter(|_| is_user) else {
            self.shared.stats.auth_failed.fetch_add(1, Relaxed);
            self.replies.aside(xid, 0, Some(Code::AuthFailed), |_| {});
            return Err(Over::AfterAnswers);
        };
        if !self.identify(shown) {
            self.replies.aside(xid, 0, Some(Code::AuthFailed), |_| {});
            return Err(Over::AfterAnswers);
        }
        self.replies.aside(xid, 0, None, |_| {});
        Ok(())
    }

    /// Logs in whom `user:password` names, if that is a user; whether nothing is wrong with it.
    async fn log_in_user(&mut self, token: &[u8]) -> Result<bool, Over> {
        let auth = self.reader().auth();
        let named = token.iter().position(|byte| *byte == b':');
        let named = named.map(|colon| (&token[..colon], &token[colon + 1..]));
        let Some((user, password)) =
            named.and_then(|(user, password)| Some((str::from_utf8(user).ok()?, password)))
        else {
            return Ok(true);
        };
        if !auth.enabled() || auth.user(user).is_none() {
            return Ok(true);
        }
        let Some(principal) = self.shared.gate.log_in(user, password).await? else {
            return Ok(false);
        };
        self.principal = principal;
        Ok(true)
    }

    /// Notes who the client has shown to be; not if that is too many.
    fn identify(&mut self, shown: Vec<Identity>) -> bool {
        let mut ids = self.ids.to_vec();
        for id in shown {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let fits = acl::bytes_of(&ids) <= IDENTITIES_BYTES_MAX;
        if fits {
            self.ids = ids.into();
        }
        fits
    }

    /// A step of SASL; one that fails ends the connection, unless that does not matter.
    fn log_in(&mut self, xid: i32, token: &[u8]) -> Result<(), Over> {
        let options = &self.shared.options;
        let Some(users) = &options.sasl else {
            // A server without SASL has no token to give, and says so without an error.
            self.replies.aside(xid, 0, None, |out| out.buffer(None));
            return Ok(());
        };
        match self.sasl.step(users, token, nonce) {
            Ok(step) => {
                if let Some(user) = &step.user {
                    let shown = acl::logged_in(user, &options.sasl_super_users);
                    if !self.identify(shown) {
                        self.replies.aside(xid, 0, Some(Code::AuthFailed), |_| {});
                        return Err(Over::AfterAnswers);
                    }
                }
                let token = Some(&step.token[..]);
                self.replies.aside(xid, 0, None, |out| out.buffer(token));
                return Ok(());
            }
            Err(refused) => {
                self.shared.stats.auth_failed.fetch_add(1, Relaxed);
                let session = self.key.id.0;
                tracing::warn!(session, %refused, "client could not log in by SASL");
            }
        }
        if options.sasl_may_fail && !options.requires_sasl() {
            self.replies.aside(xid, 0, None, |out| out.buffer(None));
            return Ok(());
        }
        let code = match options.requires_sasl() {
            true => Code::AuthRequired,
            false => Code::AuthFailed,
        };
        self.replies
            .aside(xid, 0, Some(code), |out| out.buffer(None));
        Err(Over::AfterAnswers)
    }

    fn who_am_i(&mut self, xid: i32) {
        let at = self.reader().revision();
        let ids = Arc::clone(&self.ids);
        self.replies.answer(xid, at, |out| {
            out.count(ids.len());
            for id in &*ids {
                out.text(&id.scheme);
                out.text(acl::user_of(id));
            }
        });
    }

    /// Answers how many nodes lie beneath one, all the way down; counted beside the connection's thread.
    async fn count(&mut self, xid: i32, path: &str) {
        if let Err(code) = self.desk().check_readable(path) {
            return self.refuse_now(xid, code);
        }
        let (reader, path) = (self.reader().clone(), path.to_owned());
        let mount = self.shared.options.mount.clone();
        let count = move || read::count(&reader, &mount, &path);
        let Ok((at, count)) = self.shared.gate.read_aside(count).await else {
            return self.refuse_now(xid, Code::Throttled);
        };
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        self.replies.answer(xid, at, |out| out.int(count));
    }

    /// Changes the members, one after the other: what was done of it when one refuses stays done.
    async fn reconfigure(&mut self, xid: i32, asked: &Reconfig<'_>) -> Result<(), Over> {
        match self.reconfigured(asked).await {
            Ok(()) => {
                self.tell().await?;
                let desk = self.desk();
                let (at, config) = (desk.reader.revision(), desk.config());
                self.replies.answer(xid, at, |out| {
                    out.buffer(Some(config.data.as_bytes()));
                    config.stat.encode(out);
                });
            }
            Err(Failure::Answer(code, _)) => self.refuse_now(xid, code),
            Err(Failure::Expired | Failure::Lost) => return Err(Over::AfterAnswers),
        }
        Ok(())
    }

    async fn reconfigured(&self, asked: &Reconfig<'_>) -> Result<(), Failure> {
        let refuse = |code| Failure::Answer(code, None);
        if !self.shared.options.reconfig {
            return Err(refuse(Code::ReconfigDisabled));
        }
        let desk = self.desk();
        let ensemble = desk.ensemble();
        let gate = &self.shared.gate;
        let here = gate.status().member;
        let changes = ensemble.plan(asked, here).map_err(refuse)?;
        if !desk.may_reconfigure() {
            return Err(refuse(Code::NoAuth));
        }
        // What was planned for these members is not done to others, whoever changes them meanwhile.
        let mut version = ensemble.version.number;
        for change in changes {
            // Its pings wait behind this, and each change may take its time.
            gate.touch(self.key.id);
            let after = Some(version);
            let changed = match change {
                Change::Remove(id) => gate.member_remove(id, after, CONNECTED_FOR).await,
                Change::Add(new) => {
                    let added = gate.member_add(NewMember { after, ..new }, CONNECTED_FOR);
                    added.await.map(|(_, version)| version)
                }
                Change::Promote(id) => gate.member_promote(id, after).await,
                Change::Describe(description) => {
                    let description = Description {
                        after,
                        ..description
                    };
                    gate.member_update(description).await
                }
            };
            version = changed.map_err(|error| match error {
                MemberError::Refused(refusal) => refuse(ensemble::code_of(refusal)),
                MemberError::Unavailable(_) => Failure::Lost,
            })?;
        }
        Ok(())
    }

    /// Ends the session, if it is still this connection's.
    async fn close(&mut self, xid: i32) -> Result<(), Over> {
        if self.read_only {
            self.done(xid, Ok(()));
            return Err(Over::AfterAnswers);
        }
        let close = Command::Close(self.take_turn());
        let closed = self.shared.gate.propose(&self.principal, close).await;
        let at = match closed {
            Ok(accepted) => accepted.revision,
            Err(Error::Refused(Refusal::LeaseNotFound(_))) => self.reader().revision(),
            Err(Error::Refused(_) | Error::Unavailable(_)) => return Err(Over::AfterAnswers),
        };
        self.replies.answer(xid, at, |_| {});
        Err(Over::AfterAnswers)
    }
}

/// What no client can foresee, for a challenge.
fn nonce() -> String {
    STANDARD.encode(rand::random::<[u8; 24]>())
}
