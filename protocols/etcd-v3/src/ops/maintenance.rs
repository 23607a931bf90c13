//! An operator's calls: status, alarms, hashes, defragmentation, leadership.

use super::{ETCD_VERSION, Ops};
use crate::errors::{self, Error};
use crate::hash::{self, Hashed};
use gateway::keyspace::command::{Alarm, AlarmChange};
use gateway::keyspace::{Command, Revision};
use gateway::{MemberError, Unavailable};
use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeInfo, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
    MoveLeaderResponse, StatusRequest, StatusResponse,
};

/// The storage format etcd names, which follows its minor version.
const STORAGE_VERSION: &str = "3.7.0";

impl Ops {
    /// How this member is.
    pub fn status(&self, _: StatusRequest) -> Result<StatusResponse, Error> {
        self.gate.reader().check_known(&self.by)?;
        let status = self.gate.status();
        let space = self.gate.space();
        let mut troubles = Vec::new();
        if status.leader == 0 {
            troubles.push(errors::NO_LEADER.message.into_owned());
        }
        for (member, alarm) in self.gate.reader().alarms() {
            let name = alarm_type(alarm).as_str_name();
            troubles.push(format!("memberID:{member} alarm:{name}"));
        }
        let quota = self.gate.limits().space_bytes_max;
        Ok(StatusResponse {
            header: Some(self.header_now().into()),
            version: ETCD_VERSION.into(),
            db_size: space.total_bytes as i64,
            leader: status.leader,
            raft_index: status.committed,
            raft_term: status.term,
            raft_applied_index: status.applied,
            errors: troubles,
            db_size_in_use: space.in_use_bytes as i64,
            is_learner: status.learner,
            storage_version: STORAGE_VERSION.into(),
            // A quota that is off is negative in etcd's configuration, and so here.
            db_size_quota: quota.map_or(-1, |bytes| bytes as i64),
            downgrade_info: Some(DowngradeInfo::default()),
        })
    }

    /// Lists, raises or clears alarms.
    pub async fn alarm(&self, request: AlarmRequest) -> Result<AlarmResponse, Error> {
        let action = request.action();
        match action {
            AlarmAction::Get => self.gate.reader().check_known(&self.by)?,
            AlarmAction::Activate | AlarmAction::Deactivate => {
                self.gate.reader().check_root(&self.by)?;
            }
        }
        let asked = match request.alarm() {
            AlarmType::None => None,
            AlarmType::Nospace => Some(Alarm::NoSpace),
            AlarmType::Corrupt => Some(Alarm::Corrupt),
        };
        let alarms = match (action, asked) {
            (AlarmAction::Get, asked) => {
                // etcd asks through the log, so the answer is as fresh as a linearized read.
                self.gate.linearize().await?;
                self.alarms(|_, alarm| asked.is_none_or(|asked| asked == alarm))
            }
            (AlarmAction::Activate, Some(asked)) => {
                self.change_alarm(request.member_id, asked, true).await?;
                vec![alarm_message(request.member_id, asked)]
            }
            (AlarmAction::Deactivate, Some(asked)) => {
                let cleared =
                    self.alarms(|member, alarm| (member, alarm) == (request.member_id, asked));
                self.change_alarm(request.member_id, asked, false).await?;
                cleared
            }
            (AlarmAction::Activate | AlarmAction::Deactivate, None) => Vec::new(),
        };
        Ok(AlarmResponse {
            header: Some(self.header_now().into()),
            alarms,
        })
    }

    async fn change_alarm(&self, member: u64, alarm: Alarm, raised: bool) -> Result<(), Error> {
        let change = AlarmChange {
            member,
            alarm,
            raised,
        };
        self.gate.propose(&self.by, Command::Alarm(change)).await?;
        Ok(())
    }

    fn alarms(&self, which: impl Fn(u64, Alarm) -> bool) -> Vec<AlarmMember> {
        let alarms = self.gate.reader().alarms().into_iter();
        let alarms = alarms.filter(|&(member, alarm)| which(member, alarm));
        alarms
            .map(|(member, alarm)| alarm_message(member, alarm))
            .collect()
    }

    /// Lets the reported size fall to what is in use. There is no file to rewrite here, so nothing
    /// stops meanwhile. etcd's answer has no header.
    pub fn defragment(&self, _: DefragmentRequest) -> Result<DefragmentResponse, Error> {
        self.gate.reader().check_root(&self.by)?;
        self.gate.defragment();
        Ok(DefragmentResponse::default())
    }

    /// A hash over everything, for comparing members of ours. etcd's is over its file, which is no
    /// two members' alike.
    pub async fn hash(&self, _: HashRequest) -> Result<HashResponse, Error> {
        self.gate.reader().check_root(&self.by)?;
        let hashed = self.hash_up_to(None).await?;
        Ok(HashResponse {
            header: Some(self.header(hashed.newest).into()),
            hash: hashed.hash,
        })
    }

    /// etcd's hash of the keys and their history up to a revision: equal histories give equal
    /// hashes, there and here.
    pub async fn hash_kv(&self, request: HashKvRequest) -> Result<HashKvResponse, Error> {
        self.gate.reader().check_root(&self.by)?;
        let revision = u64::try_from(request.revision).ok().filter(|&it| it > 0);
        let kept = revision.and_then(|it| self.kept_hashes.get(Revision(it)));
        let hashed = match kept {
            Some(kept) => kept,
            None => self.hash_up_to(revision).await?,
        };
        Ok(HashKvResponse {
            header: Some(self.header(self.gate.reader().revision()).into()),
            hash: hashed.hash,
            compact_revision: match hashed.compacted.0 {
                0 => -1,
                compacted => compacted as i64,
            },
            hash_revision: hashed.revision.0 as i64,
        })
    }

    /// A long history keeps a core busy for seconds, so other calls must not wait behind it.
    pub(super) async fn hash_up_to(&self, revision: Option<u64>) -> Result<Hashed, Error> {
        let reader = self.gate.reader().clone();
        let hashing = self.gate.read_aside(move || hash::keys(&reader, revision));
        Ok(hashing.await??)
    }

    /// Hands leadership to another member. Only the leader can. etcd's answer has no header.
    pub async fn move_leader(
        &self,
        request: MoveLeaderRequest,
    ) -> Result<MoveLeaderResponse, Error> {
        self.gate.reader().check_root(&self.by)?;
        let status = self.gate.status();
        if status.leader != status.member {
            return Err(errors::NOT_LEADER);
        }
        match self.gate.transfer_leader(request.target_id).await {
            Ok(()) => Ok(MoveLeaderResponse::default()),
            Err(MemberError::Unavailable(Unavailable::TimedOut)) => {
                Err(errors::LEADER_TRANSFER_TIMEOUT)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn alarm_type(alarm: Alarm) -> AlarmType {
    match alarm {
        Alarm::NoSpace => AlarmType::Nospace,
        Alarm::Corrupt => AlarmType::Corrupt,
    }
}

fn alarm_message(member: u64, alarm: Alarm) -> AlarmMember {
    AlarmMember {
        member_id: member,
        alarm: alarm_type(alarm).into(),
    }
}
