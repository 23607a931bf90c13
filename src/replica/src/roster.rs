//! Who belongs to the cluster, as replicated, and which changes of it are possible.

use crate::MemberRefusal;
use keyspace::{Revision, WallMs};
use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};

/// A member of the cluster, as replicated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// Its name in the protocol, derived as etcd does.
    #[n(0)]
    pub id: u64,
    /// Empty until it started and published itself.
    #[n(1)]
    pub name: String,
    /// Where its peers reach it.
    #[n(2)]
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it published itself.
    #[n(3)]
    pub client_urls: Vec<String>,
    /// Receives the log, has no vote.
    #[n(4)]
    pub learner: bool,
    /// A small number that no other member has, for those who call members by number: from 1 in the
    /// order of their names in a new cluster, then one more than any before, unless it was chosen.
    #[n(5)]
    pub number: u64,
    /// Where clients reach it that do not speak HTTP: `tcp://host:port`, or `tls` for TLS.
    #[n(6)]
    pub stream_urls: Vec<String>,
    /// A second port that its peers were told, for those who expect two. Nothing listens there.
    #[n(7)]
    pub second_port: Option<u16>,
}

/// A member to be added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewMember {
    /// Where its peers will reach it.
    pub peer_urls: Vec<String>,
    /// Without a vote.
    pub learner: bool,
    /// What it is to be called by number; none for the next.
    pub number: Option<u64>,
    /// Where clients will reach it that do not speak HTTP, as far as that is known before it says so
    /// itself.
    pub stream_urls: Vec<String>,
    /// A second port for its peers, for those who expect two.
    pub second_port: Option<u16>,
    /// The number of the version of the members that it is to follow; none for any.
    pub after: Option<u64>,
}

/// The members and those that were removed (whose ids never come back).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Roster {
    #[n(0)]
    members: BTreeMap<u64, Member>,
    #[n(1)]
    removed: BTreeSet<u64>,
    /// The greatest number that a member ever had.
    #[n(2)]
    last_number: u64,
    #[n(3)]
    version: Version,
}

/// Which roster it is, of those that followed each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Version {
    /// 0 of the members that the cluster was founded with; after each change greater than before,
    /// and greater than the keyspace's revision was.
    #[n(0)]
    pub number: u64,
    /// When it changed, as the keyspace told the time.
    #[n(1)]
    pub since: WallMs,
}

/// A change of who belongs; it changes who votes, so it travels as a Raft configuration change.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum MemberChange {
    /// A new member.
    #[n(0)]
    Add {
        /// Its id.
        #[n(0)]
        id: u64,
        /// Where its peers reach it.
        #[n(1)]
        peer_urls: Vec<String>,
        /// Without a vote.
        #[n(2)]
        learner: bool,
        /// How many learners the proposer allows. It travels with the change so that members with
        /// different settings decide alike.
        #[n(3)]
        learners_max: u32,
        /// Its number; none for the next.
        #[n(4)]
        number: Option<u64>,
        /// Where clients reach it that do not speak HTTP, as far as that is known.
        #[n(5)]
        stream_urls: Vec<String>,
        /// A second port for its peers, for those who expect two.
        #[n(6)]
        second_port: Option<u16>,
        /// The number of the version that it is to follow; none for any.
        #[n(7)]
        after: Option<u64>,
    },
    /// A member goes for good.
    #[n(1)]
    Remove {
        /// Its id.
        #[n(0)]
        id: u64,
        /// The number of the version that it is to follow; none for any.
        #[n(1)]
        after: Option<u64>,
    },
    /// A learner gets its vote.
    #[n(2)]
    Promote {
        /// Its id.
        #[n(0)]
        id: u64,
        /// The number of the version that it is to follow; none for any.
        #[n(1)]
        after: Option<u64>,
    },
}

impl MemberChange {
    /// Whom it is about.
    pub fn id(&self) -> u64 {
        match self {
            MemberChange::Add { id, .. }
            | MemberChange::Remove { id, .. }
            | MemberChange::Promote { id, .. } => *id,
        }
    }

    fn after(&self) -> Option<u64> {
        match self {
            MemberChange::Add { after, .. }
            | MemberChange::Remove { after, .. }
            | MemberChange::Promote { after, .. } => *after,
        }
    }
}

/// What a member is called and where it is reached; changes nobody's vote. `None` keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Description {
    /// Which member.
    #[n(0)]
    pub id: u64,
    /// Its name.
    #[n(1)]
    pub name: Option<String>,
    /// Where clients reach it.
    #[n(2)]
    pub client_urls: Option<Vec<String>>,
    /// Where its peers reach it.
    #[n(3)]
    pub peer_urls: Option<Vec<String>>,
    /// Where clients reach it that do not speak HTTP.
    #[n(4)]
    pub stream_urls: Option<Vec<String>>,
    /// A second port for its peers, for those who expect two.
    #[n(5)]
    pub second_port: Option<u16>,
    /// The number of the version that it is to follow; none for any.
    #[n(6)]
    pub after: Option<u64>,
}

impl Description {
    /// Whether it says where peers reach the member, which is for the cluster to decide; what it says
    /// of itself as it starts has nothing of that.
    pub fn is_order(&self) -> bool {
        self.peer_urls.is_some()
    }
}

impl Roster {
    /// The members a cluster starts with, numbered in this order.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Roster {
        let numbered = (1..).zip(members);
        let members: BTreeMap<u64, Member> = numbered
            .map(|(number, member)| (member.id, Member { number, ..member }))
            .collect();
        Roster {
            last_number: members.len() as u64,
            members,
            ..Roster::default()
        }
    }

    /// Which one it is of those that followed each other.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Notes that it was changed, at this revision and time of the keyspace, by an `order` or by what a
    /// member says of itself. That is no change while the members are those that the cluster was
    /// founded with: they say it as they start.
    pub fn changed(&mut self, order: bool, revision: Revision, wall: WallMs) {
        if order || self.version.number > 0 {
            self.version = Version {
                number: self.version.number.max(revision.0) + 1,
                since: wall,
            };
        }
    }

    /// One member.
    pub fn get(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Every member, by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Whether this id was a member and is one no more.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// Ids of those that vote, in order.
    pub fn voters(&self) -> Vec<u64> {
        self.ids(|member| !member.learner)
    }

    /// Ids of those that do not, in order.
    pub fn learners(&self) -> Vec<u64> {
        self.ids(|member| member.learner)
    }

    fn ids(&self, wanted: impl Fn(&Member) -> bool) -> Vec<u64> {
        let wanted = self.members.values().filter(|member| wanted(member));
        wanted.map(|member| member.id).collect()
    }

    /// Whether a change is possible now (etcd's `ValidateConfigurationChange`).
    pub fn check(&self, change: &MemberChange) -> Result<(), MemberRefusal> {
        self.check_version(change.after())?;
        if self.is_removed(change.id()) {
            return Err(MemberRefusal::NotFound);
        }
        match change {
            MemberChange::Add {
                id,
                peer_urls,
                learner,
                learners_max,
                number,
                stream_urls: _,
                second_port: _,
                after: _,
            } => {
                let is_taken = |member: &Member| Some(member.number) == *number;
                if self.members.contains_key(id) || self.members.values().any(is_taken) {
                    return Err(MemberRefusal::IdExists);
                }
                self.check_peer_urls(*id, peer_urls)?;
                if *learner && self.learners().len() >= *learners_max as usize {
                    return Err(MemberRefusal::TooManyLearners);
                }
                Ok(())
            }
            MemberChange::Remove { id, after: _ } => {
                let last_vote = self.voters() == [*id];
                match self.members.get(id) {
                    None => Err(MemberRefusal::NotFound),
                    // A group without a voter could never decide anything again.
                    Some(_) if last_vote => Err(MemberRefusal::NotEnoughStarted),
                    Some(_) => Ok(()),
                }
            }
            MemberChange::Promote { id, after: _ } => match self.members.get(id) {
                None => Err(MemberRefusal::NotFound),
                Some(member) if !member.learner => Err(MemberRefusal::NotLearner),
                Some(_) => Ok(()),
            },
        }
    }

    /// Whoever planned a change for other members than these would be surprised by what comes of it.
    fn check_version(&self, after: Option<u64>) -> Result<(), MemberRefusal> {
        match after.is_none_or(|after| after == self.version.number) {
            true => Ok(()),
            false => Err(MemberRefusal::OtherVersion),
        }
    }

    fn check_peer_urls(&self, id: u64, peer_urls: &[String]) -> Result<(), MemberRefusal> {
        let mut others = self.members.values().filter(|member| member.id != id);
        if others.any(|other| other.peer_urls.iter().any(|url| peer_urls.contains(url))) {
            return Err(MemberRefusal::PeerUrlExists);
        }
        Ok(())
    }

    /// Makes a change, or says why it is not possible.
    pub fn change(&mut self, change: &MemberChange) -> Result<(), MemberRefusal> {
        self.check(change)?;
        match change {
            MemberChange::Add {
                id,
                peer_urls,
                learner,
                learners_max: _,
                number,
                stream_urls,
                second_port,
                after: _,
            } => {
                let number = number.unwrap_or(self.last_number.saturating_add(1));
                self.last_number = self.last_number.max(number);
                let member = Member {
                    id: *id,
                    peer_urls: peer_urls.clone(),
                    learner: *learner,
                    number,
                    stream_urls: stream_urls.clone(),
                    second_port: *second_port,
                    ..Member::default()
                };
                self.members.insert(*id, member);
            }
            MemberChange::Remove { id, after: _ } => {
                self.members.remove(id);
                self.removed.insert(*id);
            }
            MemberChange::Promote { id, after: _ } => {
                if let Some(member) = self.members.get_mut(id) {
                    member.learner = false;
                }
            }
        }
        Ok(())
    }

    /// Changes what a member is called or where it is reached; whether that makes a new version: an
    /// order does, even of what is so already, and else where those clients reach it that do not speak
    /// HTTP.
    pub fn describe(&mut self, description: &Description) -> Result<bool, MemberRefusal> {
        self.check_version(description.after)?;
        if let Some(peer_urls) = &description.peer_urls {
            self.check_peer_urls(description.id, peer_urls)?;
        }
        let Some(member) = self.members.get_mut(&description.id) else {
            return Err(MemberRefusal::NotFound);
        };
        let mut moved = description.is_order();
        if let Some(name) = &description.name {
            member.name.clone_from(name);
        }
        if let Some(urls) = &description.client_urls {
            member.client_urls.clone_from(urls);
        }
        if let Some(urls) = &description.peer_urls {
            member.peer_urls.clone_from(urls);
        }
        if let Some(urls) = &description.stream_urls {
            moved |= member.stream_urls != *urls;
            member.stream_urls.clone_from(urls);
        }
        member.second_port = description.second_port.or(member.second_port);
        Ok(moved)
    }

    /// Whether, counting those that have started, a quorum remains possible when a voter joins
    /// (etcd's `IsReadyToAddVotingMember`). One started member may always be given a second:
    /// that is how a lost cluster is rebuilt from one.
    pub fn may_add_voter(&self) -> bool {
        let (voters, started) = self.count_voters(|_| true);
        (voters == 1 && started == 1) || started > voters.div_ceil(2)
    }

    /// The same for a voter that goes.
    pub fn may_remove_voter(&self, id: u64) -> bool {
        let (voters, started) = self.count_voters(|member| member.id != id);
        started > voters / 2
    }

    /// The same for a learner that gets its vote; it counts as started.
    pub fn may_promote(&self) -> bool {
        let (voters, started) = self.count_voters(|_| true);
        started + 1 > voters.div_ceil(2)
    }

    /// Voters that satisfy `wanted`, and how many of them have started.
    fn count_voters(&self, wanted: impl Fn(&Member) -> bool) -> (usize, usize) {
        let counted = self.members().filter(|m| !m.learner && wanted(m));
        counted.fold((0, 0), |(voters, started), member| {
            (voters + 1, started + usize::from(!member.name.is_empty()))
        })
    }

    /// Leaves `id` as the only member, with a vote; the others may come back as new ones only.
    pub fn reduce_to(&mut self, id: u64) {
        let mut member = self.members.remove(&id).unwrap_or_default();
        member.id = id;
        member.learner = false;
        let others = std::mem::take(&mut self.members).into_keys();
        self.removed.extend(others);
        self.removed.remove(&id);
        self.members.insert(id, member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        Member {
            id,
            peer_urls: vec![format!("http://m{id}:2380")],
            ..Member::default()
        }
    }

    /// Of two who planned a change for the same members, one is told that they are others now.
    #[test]
    fn changes_follow_the_version_they_were_planned_for() {
        let mut roster = Roster::new([1, 2, 3, 4].map(member));
        roster.changed(true, Revision(7), WallMs(0));
        let planned = Some(roster.version().number);
        let remove = |id| MemberChange::Remove { id, after: planned };
        assert_eq!(roster.change(&remove(1)), Ok(()));
        roster.changed(true, Revision(7), WallMs(0));

        let late = [
            remove(2),
            MemberChange::Promote {
                id: 2,
                after: planned,
            },
            MemberChange::Add {
                id: 9,
                peer_urls: vec!["http://m9:2380".to_owned()],
                learner: false,
                learners_max: 1,
                number: None,
                stream_urls: Vec::new(),
                second_port: None,
                after: planned,
            },
        ];
        let before = roster.clone();
        for change in late {
            let refused = Err(MemberRefusal::OtherVersion);
            assert_eq!(roster.change(&change), refused, "{change:?}");
        }
        let moved = |after| Description {
            id: 2,
            peer_urls: Some(vec!["http://m2:1".to_owned()]),
            after,
            ..Description::default()
        };
        let refused = Err(MemberRefusal::OtherVersion);
        assert_eq!(roster.describe(&moved(planned)), refused);
        assert_eq!(roster, before);

        let now = Some(roster.version().number);
        assert_eq!(roster.describe(&moved(now)), Ok(true));
        assert_eq!(roster.describe(&moved(None)), Ok(true), "as ordered");
        let any = MemberChange::Remove { id: 3, after: None };
        assert_eq!(roster.change(&any), Ok(()));
    }
}
