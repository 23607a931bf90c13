//! The world's misfortune: faults begin and are mended.

use crate::agenda::{Event, Mend};
use crate::failure::Failure;
use crate::faults::{self, Fault};
use crate::host::Death;
use crate::member::Input;
use crate::net::FAIR;
use crate::world::World;
use replica::roster::MemberChange;
use store::mem::Faults as DiskFaults;

/// Members beyond those that the cluster began with.
const SPARE_MEMBERS: usize = 1;
/// A learner may lag so many entries when it is given its vote.
const PROMOTION_LAG: u64 = 20;

impl World {
    /// The next fault begins.
    pub(crate) fn break_something(&mut self) -> Result<(), Failure> {
        if self.calm {
            return Ok(());
        }
        let pause = self.faults.pause();
        self.plan(pause, Event::Break);
        let members: Vec<u64> = self
            .hosts
            .values()
            .filter(|h| !h.removed)
            .map(|h| h.id)
            .collect();
        let fault = self.faults.next_fault(&members);
        self.trace
            .note(self.now, &[8], || format!("fault: {fault:?}"));
        match fault {
            Fault::Crash {
                member,
                kept,
                torn,
                image_damaged,
                lasts,
            } => {
                let death = Death {
                    kept,
                    image_damaged,
                };
                self.crash(member, death, torn, lasts);
            }
            Fault::Split { side, lasts } => {
                let others: Vec<u64> = members.into_iter().filter(|m| !side.contains(m)).collect();
                self.net.cut(&side, &others);
                self.net.cut(&others, &side);
                self.plan(lasts, Event::Mend(Mend::Links));
            }
            Fault::Mute {
                members: mute,
                lasts,
            } => {
                let others: Vec<u64> = members.into_iter().filter(|m| !mute.contains(m)).collect();
                self.net.cut(&mute, &others);
                self.plan(lasts, Event::Mend(Mend::Links));
            }
            Fault::IsolateLeader { lasts } => {
                if let Some(leader) = self.leader() {
                    let others: Vec<u64> = members.into_iter().filter(|m| *m != leader).collect();
                    self.net.cut(&[leader], &others);
                    self.net.cut(&others, &[leader]);
                    self.plan(lasts, Event::Mend(Mend::Links));
                }
            }
            Fault::Storm {
                lost,
                twice,
                delay_max,
                lasts,
            } => {
                self.net.weather = faults::storm(lost, twice, delay_max);
                self.plan(lasts, Event::Mend(Mend::Weather));
            }
            Fault::SlowDisk {
                member,
                sync,
                lasts,
            } => {
                self.host(member).slow_sync = Some(sync);
                self.plan(lasts, Event::Mend(Mend::Disk(member)));
            }
            Fault::FullDisk { member, lasts } => {
                let host = self.host(member);
                host.faults = DiskFaults {
                    full: true,
                    ..host.faults
                };
                host.disk.set_faults(host.faults);
                self.plan(lasts, Event::Mend(Mend::Room(member)));
            }
            Fault::ClockJump { member, by_ms } => self.host(member).skew_ms += by_ms,
            Fault::Pause { member, lasts } => {
                self.host(member).paused = true;
                self.plan(lasts, Event::Mend(Mend::Resume(member)));
            }
            Fault::Transfer { to } => {
                if let Some(leader) = self.leader() {
                    self.arrive(leader, Input::Transfer(to))?;
                }
            }
            Fault::Membership { draw } => self.change_members(draw)?,
        }
        Ok(())
    }

    fn host(&mut self, id: u64) -> &mut crate::host::Host {
        self.hosts.get_mut(&id).expect("hosts stay")
    }

    fn crash(&mut self, id: u64, death: Death, torn: bool, lasts: u64) {
        let host = self.host(id);
        if torn && host.member.is_some() && !host.is_busy() {
            // Its next write is due with the next entry or vote; see `World::disk`.
            host.doomed = Some(death);
        } else {
            self.kill(id, death);
        }
        self.plan(lasts, Event::Mend(Mend::Start(id)));
    }

    /// Adds a learner, gives it its vote, or removes a member, whichever is due.
    fn change_members(&mut self, draw: u64) -> Result<(), Failure> {
        let roster = self.roster();
        let applied = |id: u64| {
            let member = self.hosts.get(&id).and_then(|host| host.member.as_ref());
            member.map_or(0, |member| member.applied())
        };
        let newest = roster.members().map(|m| applied(m.id)).max().unwrap_or(0);
        let voters = roster.voters();
        let change = match roster.learners().first() {
            Some(&id) if applied(id) + PROMOTION_LAG >= newest => {
                MemberChange::Promote { id, after: None }
            }
            Some(_) => return Ok(()),
            None if voters.len() >= self.options.members as usize + SPARE_MEMBERS => {
                let id = voters[(draw % voters.len() as u64) as usize];
                MemberChange::Remove { id, after: None }
            }
            None => {
                let id = self.hosts.keys().max().map_or(1, |id| id + 1);
                MemberChange::Add {
                    id,
                    peer_urls: vec![format!("http://m{id}")],
                    learner: true,
                    learners_max: 1,
                    number: None,
                    stream_urls: Vec::new(),
                    second_port: None,
                    after: None,
                }
            }
        };
        self.ask_for(change)
    }

    /// Something is mended.
    pub(crate) fn mend(&mut self, mend: Mend) -> Result<(), Failure> {
        self.trace
            .note(self.now, &[9], || format!("mended: {mend:?}"));
        match mend {
            Mend::Start(id) => self.start(id)?,
            Mend::Links => self.net.mend(),
            Mend::Weather => self.net.weather = FAIR,
            Mend::Disk(id) => self.host(id).slow_sync = None,
            Mend::Room(id) => {
                let host = self.host(id);
                host.faults = DiskFaults {
                    full: false,
                    ..host.faults
                };
                host.disk.set_faults(host.faults);
                self.start(id)?;
            }
            Mend::Resume(id) => {
                self.host(id).paused = false;
                if self.host(id).member.is_some() {
                    self.arrive(id, Input::Tick)?;
                }
            }
        }
        Ok(())
    }

    /// Starts a machine, unless it runs, is out of room, or was removed.
    fn start(&mut self, id: u64) -> Result<(), Failure> {
        let roster = self.first_roster.clone();
        let now = self.now;
        let host = self.host(id);
        host.doomed = None;
        if host.member.is_some() || host.removed || host.faults.full {
            return Ok(());
        }
        let joins = roster.get(id).is_none();
        let started = host.start(now, (!joins).then_some(&roster));
        started.map_err(|fault| Failure::Stopped {
            member: id,
            reason: fault.to_string(),
        })?;
        let run = host.run;
        self.plan(0, Event::Tick(id, run));
        Ok(())
    }

    /// Nothing breaks any more, and everything is mended.
    pub(crate) fn calm_down(&mut self) -> Result<(), Failure> {
        self.calm = true;
        self.net.mend();
        self.net.weather = FAIR;
        let ids: Vec<u64> = self.hosts.keys().copied().collect();
        for id in ids {
            self.mend(Mend::Disk(id))?;
            self.mend(Mend::Room(id))?;
            self.mend(Mend::Resume(id))?;
        }
        Ok(())
    }
}
