//! Runs the scripts in `tests/scripts`: small clusters of cores in one thread, over disks in memory,
//! with every message in the transcript. `UPDATE_GOLDENFILES=1 cargo test -p replica --test scripts`
//! writes down anew what comes of them; review the difference.

mod common;

use common::put;
use goldenscript::{ArgumentConsumer, Command as Line, Context, Runner};
use keyspace::{Applied, Command, WallMs};
use replica::Member;
use replica::core::{Core, CoreConfig, MessageKind, Outgoing, Role, describe, snapshot_message};
use replica::entry::Step;
use replica::machine::{
    Content, Machine, Meta, Observer, Owner, Place, StepOutcome, to_keyspace, to_store,
};
use replica::proposals::{Committed, Proposal, Proposals, Waiter};
use replica::reads::Reads;
use replica::roster::{MemberChange, Roster};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write;
use store::mem::{MemCheckpoints, MemDisk, MemLog};
use store::{CheckpointStore, LogEntry, Mark};
use test_each_file::test_each_path;

test_each_path! { in "src/replica/tests/scripts" as script => run }

fn run(path: &std::path::Path) {
    goldenscript::run(&mut Cluster::default(), path).expect("the script runs")
}

const ELECTION_TICKS: usize = 10;

/// Who waits: the name that the script gave.
struct Token(String);

impl Waiter for Token {
    fn gave_up(&self) -> bool {
        false
    }
}

struct Node {
    id: u64,
    core: Core,
    machine: Machine,
    proposals: Proposals<Token>,
    reads: Reads<Token>,
    /// Reads that wait for an entry.
    waiting: Vec<(u64, Token)>,
    checkpoints: MemCheckpoints,
    /// The snapshot that was stepped last.
    snapshot: Option<(Place, Machine)>,
    was: (Role, u64),
}

struct Quiet;

impl Observer for Quiet {
    fn applied(&mut self, _: &Command, _: &Applied) {}
}

/// What travels: the message, and with a snapshot the state it announces.
struct Parcel {
    from: u64,
    message: Outgoing,
    state: Option<(Mark, Vec<keyspace::Record>)>,
}

#[derive(Default)]
struct Cluster {
    nodes: BTreeMap<u64, Node>,
    disks: BTreeMap<u64, MemDisk>,
    incarnations: BTreeMap<u64, u64>,
    parcels: Vec<Parcel>,
    cut_off: BTreeSet<u64>,
    /// Drops every second message.
    lossy: bool,
    sent: u64,
    out: String,
}

impl Node {
    /// From what is on the disk.
    fn open(id: u64, incarnation: u64, disk: &MemDisk) -> Result<Node, Box<dyn Error>> {
        let mut checkpoints = MemCheckpoints::open(disk);
        let loaded = checkpoints.load()?.ok_or("there is nothing on the disk")?;
        let meta = Meta::decode(&loaded.mark.meta)?;
        let place = Place {
            index: loaded.mark.index,
            term: loaded.mark.term,
        };
        let records = loaded.records.collect::<Result<Vec<_>, _>>()?;
        let machine = Machine::restore(place, &meta, records.into_iter().map(to_keyspace))?;
        let config = CoreConfig {
            member: id,
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: 1,
            seed: 7,
            pre_vote: true,
        };
        let log = Box::new(MemLog::open(disk));
        let core = Core::new(&config, log, place, machine.roster())?;
        Ok(Node {
            id,
            core,
            machine,
            proposals: Proposals::new(id, incarnation),
            reads: Reads::new(id, incarnation),
            waiting: Vec::new(),
            checkpoints,
            snapshot: None,
            was: (Role::Follower, 0),
        })
    }

    fn write_image(&mut self) -> Result<Place, Box<dyn Error>> {
        let cut = self.machine.cut(owner(self.id), None);
        let (mark, cut) = cut.ok_or("a whole cut is always possible")?;
        let mut image = self.checkpoints.begin_image(mark)?;
        for record in cut {
            image.push(to_store(record))?;
        }
        image.finish()?;
        Ok(self.machine.place())
    }
}

impl Cluster {
    fn say(&mut self, line: impl AsRef<str>) {
        self.out.push_str(line.as_ref());
        self.out.push('\n');
    }

    fn node(&mut self, id: u64) -> Result<&mut Node, Box<dyn Error>> {
        self.nodes
            .get_mut(&id)
            .ok_or_else(|| format!("n{id} does not run").into())
    }

    fn create(&mut self, id: u64, machine: Machine) -> Result<(), Box<dyn Error>> {
        let disk = MemDisk::new();
        let mut checkpoints = MemCheckpoints::open(&disk);
        let (mark, cut) = machine
            .cut(owner(id), None)
            .ok_or("a whole cut is always possible")?;
        let mut image = checkpoints.begin_image(mark)?;
        for record in cut {
            image.push(to_store(record))?;
        }
        image.finish()?;
        self.disks.insert(id, disk);
        self.open(id)
    }

    fn open(&mut self, id: u64) -> Result<(), Box<dyn Error>> {
        let incarnation = self.incarnations.entry(id).or_default();
        *incarnation += 1;
        let node = Node::open(id, *incarnation, &self.disks[&id])?;
        self.nodes.insert(id, node);
        Ok(())
    }

    /// Rounds of one node until it has nothing more to say.
    fn advance(&mut self, id: u64) -> Result<(), Box<dyn Error>> {
        let node = self.node(id)?;
        node.proposals.flush(&mut node.core, WallMs(1_000));
        node.reads.flush(&mut node.core);
        while let Some(begun) = self.node(id)?.core.begin() {
            self.post(id, begun.messages)?;
            self.apply(id, &begun.committed)?;
            for ready in &begun.reads {
                let node = self.node(id)?;
                let tokens = node.reads.take(ready);
                node.waiting
                    .extend(tokens.into_iter().map(|token| (ready.index, token)));
            }
            if let Some(place) = begun.install {
                self.install(id, place)?;
            }
            let finished = self.node(id)?.core.finish()?;
            self.post(id, finished.messages)?;
            self.apply(id, &finished.committed)?;
            self.answer_reads(id)?;
        }
        self.answer_reads(id)?;
        let node = self.node(id)?;
        let view = node.core.view();
        let is = (view.role, view.term);
        if std::mem::replace(&mut node.was, is) != is {
            self.say(format!("n{id} is {:?} at term {}", view.role, view.term));
        }
        Ok(())
    }

    fn install(&mut self, id: u64, place: Place) -> Result<(), Box<dyn Error>> {
        let node = self.node(id)?;
        let (at, machine) = node.snapshot.take().ok_or("no snapshot was stepped")?;
        assert_eq!(at, place);
        node.machine.replace(machine);
        node.write_image()?;
        self.say(format!("n{id} installs {}@{}", place.index, place.term));
        Ok(())
    }

    fn apply(&mut self, id: u64, entries: &[LogEntry]) -> Result<(), Box<dyn Error>> {
        for entry in entries {
            let node = self.node(id)?;
            let committed = node.proposals.take(entry)?;
            let effect = node.machine.apply(&committed.prepared, &mut Quiet);
            node.core
                .applied(node.machine.place(), effect.change.as_ref());
            let what = show(&committed, effect.steps.as_deref());
            self.say(format!(
                "n{id} applies {}@{} {what}",
                entry.index, entry.term
            ));
            for (_, Token(token)) in committed.waiters {
                let answer = match effect.steps {
                    Some(_) => "answered",
                    None => "refused: overtaken",
                };
                self.say(format!("n{id} {token} {answer}"));
            }
        }
        Ok(())
    }

    fn answer_reads(&mut self, id: u64) -> Result<(), Box<dyn Error>> {
        let node = self.node(id)?;
        let applied = node.machine.place().index;
        let waiting = std::mem::take(&mut node.waiting);
        let (ready, waiting) = waiting
            .into_iter()
            .partition(|(index, _)| *index <= applied);
        node.waiting = waiting;
        for (index, Token(token)) in Vec::into_iter(ready) {
            self.say(format!("n{id} {token} may read at {index}"));
        }
        Ok(())
    }

    fn post(&mut self, from: u64, messages: Vec<Outgoing>) -> Result<(), Box<dyn Error>> {
        for mut message in messages {
            let mut state = None;
            if message.kind == MessageKind::Snapshot {
                let node = self.node(from)?;
                let (place, roster) = (node.machine.place(), node.machine.roster());
                message.bytes = snapshot_message(&message.bytes, place, roster)?;
                let cut = node.machine.cut(owner(from), None);
                let (mark, cut) = cut.ok_or("a whole cut is always possible")?;
                state = Some((mark, cut.collect()));
            }
            self.sent += 1;
            let to = message.to;
            let lost = (self.lossy && self.sent.is_multiple_of(2))
                || self.cut_off.contains(&from)
                || self.cut_off.contains(&to);
            let text = describe(&message.bytes);
            let fate = if lost { " (lost)" } else { "" };
            self.say(format!("n{from} -> n{to} {text}{fate}"));
            if !lost {
                self.parcels.push(Parcel {
                    from,
                    message,
                    state,
                });
            }
        }
        Ok(())
    }

    /// Delivers what is under way now, not what comes of it.
    fn deliver(&mut self) -> Result<(), Box<dyn Error>> {
        for parcel in std::mem::take(&mut self.parcels) {
            let to = parcel.message.to;
            let is_snapshot = parcel.message.kind == MessageKind::Snapshot;
            let arrived = self.nodes.contains_key(&to) && self.hand_over(to, &parcel).is_ok();
            if is_snapshot && self.nodes.contains_key(&parcel.from) {
                self.node(parcel.from)?.core.report_snapshot(to, arrived);
                self.advance(parcel.from)?;
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, to: u64, parcel: &Parcel) -> Result<(), Box<dyn Error>> {
        let node = self.node(to)?;
        if let Some((mark, records)) = &parcel.state {
            let place = Place {
                index: mark.index,
                term: mark.term,
            };
            let meta = Meta::decode(&mark.meta)?.moved_to(owner(to));
            let machine = Machine::restore(place, &meta, records.iter().cloned())?;
            node.snapshot = Some((place, machine));
        }
        if let Err(refused) = node.core.step(&parcel.message.bytes) {
            self.say(format!("n{to} refuses: {refused}"));
        }
        self.advance(to)
    }

    fn status(&mut self) {
        let mut lines = Vec::new();
        for node in self.nodes.values() {
            let view = node.core.view();
            let (first, last) = node.core.log_bounds();
            lines.push(format!(
                "n{} {:?} term={} leader=n{} log={first}..{last} committed={} applied={} \
                 revision={} voters={:?} learners={:?}",
                node.id,
                view.role,
                view.term,
                view.leader,
                view.committed,
                node.machine.place().index,
                node.machine.revision(),
                node.machine.roster().voters(),
                node.machine.roster().learners(),
            ));
        }
        lines.iter().for_each(|line| self.say(line));
        self.agree();
    }

    /// Whatever was lost or repeated: equal index means equal state.
    fn agree(&self) {
        let mut digests = BTreeMap::new();
        for node in self.nodes.values() {
            let index = node.machine.place().index;
            let digest = node.machine.digest();
            assert_eq!(
                *digests.entry(index).or_insert(digest),
                digest,
                "n{}",
                node.id
            );
        }
    }
}

fn show(committed: &Committed<Token>, outcomes: Option<&[StepOutcome]>) -> String {
    let Some(outcomes) = outcomes else {
        return match &committed.prepared.content {
            Content::Nothing => "nothing".to_owned(),
            Content::Batch(_) | Content::Change(_) => "nothing: seen before".to_owned(),
        };
    };
    let mut text = match &committed.prepared.content {
        Content::Nothing => "nothing".to_owned(),
        Content::Batch(batch) => format!("{} steps", batch.steps.len()),
        Content::Change(request) => format!("{:?}", request.change),
    };
    for outcome in outcomes {
        let written = match outcome {
            StepOutcome::Answered(answered) => write!(text, " revision={}", answered.revision),
            StepOutcome::Roster(Ok(_)) => Ok(()),
            StepOutcome::Roster(Err(refusal)) => write!(text, " refused: {refusal}"),
        };
        written.expect("writing to memory cannot fail");
    }
    text
}

fn id(word: Option<&str>) -> Result<u64, Box<dyn Error>> {
    let number = word
        .and_then(|word| word.strip_prefix('n'))
        .ok_or("a node is n1, n2…")?;
    Ok(number.parse()?)
}

fn member(id: u64) -> Member {
    Member {
        id,
        name: format!("n{id}"),
        peer_urls: vec![format!("http://n{id}")],
        ..Member::default()
    }
}

impl Cluster {
    /// What is asked of one member.
    fn ask(
        &mut self,
        verb: &str,
        args: &mut ArgumentConsumer<'_>,
        token: Token,
    ) -> Result<(), Box<dyn Error>> {
        let at = id(args.next_pos())?;
        let node = self.node(at)?;
        match verb {
            // put nX KEY VALUE
            "put" => {
                let key = args.next_pos().ok_or("which key?")?;
                let value = args.next_pos().ok_or("which value?")?;
                let proposal = Proposal::new(vec![Step::Command(put(key, value))], token);
                node.proposals.push(proposal);
            }
            "read" => node.reads.push(token),
            // repeat nX: what is not committed is proposed again
            "repeat" => node.proposals.repeat(&mut node.core),
            "campaign" => node.core.campaign(),
            "transfer" => node.core.transfer_leader(id(args.next_pos())?),
            // add|learn|remove|promote nX nY: nX proposes the change of nY
            _ => {
                let id = id(args.next_pos())?;
                let change = match verb {
                    "remove" => MemberChange::Remove { id, after: None },
                    "promote" => MemberChange::Promote { id, after: None },
                    _ => MemberChange::Add {
                        id,
                        peer_urls: member(id).peer_urls,
                        learner: verb == "learn",
                        learners_max: 1,
                        number: None,
                        stream_urls: Vec::new(),
                        second_port: None,
                        after: None,
                    },
                };
                node.proposals.push_change(change, token);
            }
        }
        self.advance(at)
    }

    /// What happens to one member.
    fn befall(
        &mut self,
        event: &str,
        args: &mut ArgumentConsumer<'_>,
    ) -> Result<(), Box<dyn Error>> {
        let id = id(args.next_pos())?;
        match event {
            // join nX: a member that knows nothing yet
            "join" => self.create(id, Machine::new(Roster::default(), Place::default())),
            // tick nX [COUNT]
            "tick" => {
                let count: usize = args.next_pos().unwrap_or("1").parse()?;
                for _ in 0..count {
                    let node = self.node(id)?;
                    node.core.tick();
                    node.reads.tick();
                    node.proposals.tick(&mut node.core);
                    self.advance(id)?;
                }
                Ok(())
            }
            // checkpoint nX: two images, and the log is cut
            "checkpoint" => {
                let node = self.node(id)?;
                node.write_image()?;
                node.write_image()?;
                let needed_from = node.checkpoints.log_needed_from();
                Ok(node.core.cut_log(needed_from)?)
            }
            "isolate" => {
                self.cut_off.insert(id);
                Ok(())
            }
            // crash nX: power loss; nothing that was not synced is left
            "crash" => {
                self.nodes.remove(&id);
                self.disks[&id].crash(|_| 0);
                Ok(())
            }
            _ => {
                self.open(id)?;
                self.advance(id)
            }
        }
    }
}

impl Runner for Cluster {
    type Command = Line;

    fn run(&mut self, line: &Line, context: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = line.consume_args();
        let token = Token(context.prefix.clone().unwrap_or_else(|| line.name.clone()));
        match line.name.as_str() {
            // members COUNT: a new cluster
            "members" => {
                let count: u64 = args.next_pos().ok_or("how many?")?.parse()?;
                let roster = Roster::new((1..=count).map(member));
                for id in 1..=count {
                    self.create(
                        id,
                        Machine::new(roster.clone(), Place { index: 1, term: 1 }),
                    )?;
                }
            }
            "deliver" => self.deliver()?,
            "stabilize" => {
                while !self.parcels.is_empty() {
                    self.deliver()?;
                }
            }
            "heal" => self.cut_off.clear(),
            "lossy" => self.lossy = args.next_pos() == Some("on"),
            "status" => self.status(),
            verb @ ("put" | "read" | "repeat" | "campaign" | "transfer" | "add" | "learn"
            | "remove" | "promote") => self.ask(verb, &mut args, token)?,
            event @ ("join" | "tick" | "checkpoint" | "isolate" | "crash" | "restart") => {
                self.befall(event, &mut args)?;
            }
            other => return Err(format!("unknown command {other}").into()),
        }
        args.reject_next()?;
        self.agree();
        Ok(std::mem::take(&mut self.out))
    }
}

fn owner(member: u64) -> Owner {
    Owner {
        member,
        cluster: 1,
        incarnation: 0,
    }
}
