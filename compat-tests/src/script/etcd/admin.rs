//! Leases (`grant revoke ttl leases expired`), membership (`members member-add ...`) and
//! maintenance (`status alarm hash hashkv defrag move-leader snapshot downgrade health`).

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::downgrade_request::DowngradeAction;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::{
    AlarmRequest, AlarmType, DefragmentRequest, DowngradeRequest, HashKvRequest, HashRequest,
    LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest, MoveLeaderRequest, SnapshotRequest, StatusRequest,
};
use proto::health::HealthCheckRequest;
use proto::health::health_client::HealthClient;
use tonic::transport::Channel;

use super::super::args::{Args, parse_number};
use super::{CONDITION_DEADLINE, POLL, Session, error, print, reply};

/// What ends a snapshot: a checksum of this many bytes after the file.
const SNAPSHOT_HASH_BYTES: usize = 32;
/// The file is made of blocks of this many bytes.
const SNAPSHOT_BLOCK_BYTES: usize = 512;

impl Session<'_> {
    fn lease_client(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel())
    }

    pub(super) async fn lease(&mut self, name: &str, args: &mut Args) -> Result<String> {
        let mut client = self.lease_client();
        match name {
            "grant" => return self.grant(args).await,
            "expired" => return self.await_expiry(args).await,
            _ => {}
        }
        let mask = &self.mask;
        Ok(match name {
            "revoke" => {
                let id = mask.parse_lease(&args.word()?)?;
                let request = self.request(LeaseRevokeRequest { id })?;
                let call = client.lease_revoke(request);
                reply(call, |r| {
                    print::header_only(mask, "revoke", r.header.as_ref())
                })
                .await
            }
            "ttl" => {
                let keys = args.flag("keys");
                let id = mask.parse_lease(&args.word()?)?;
                let request = self.request(LeaseTimeToLiveRequest { id, keys })?;
                let call = client.lease_time_to_live(request);
                reply(call, |r| print::time_to_live(mask, r)).await
            }
            "leases" => {
                let request = self.request(LeaseLeasesRequest {})?;
                reply(client.lease_leases(request), |r| {
                    let ids = r
                        .leases
                        .iter()
                        .map(|lease| format!(" {}", mask.lease(lease.id)));
                    let head = mask.header(r.header.as_ref());
                    format!("leases{head}{}", ids.collect::<String>())
                })
                .await
            }
            _ => bail!("no such command: {name}"),
        })
    }

    /// `grant ID ttl=` with a number, or a name for the id that the server chooses.
    async fn grant(&mut self, args: &mut Args) -> Result<String> {
        let (name, ttl) = (args.word()?, args.number("ttl")?);
        let chosen = parse_number(&name).ok();
        let message = LeaseGrantRequest {
            ttl,
            id: chosen.unwrap_or(0),
        };
        let request = self.request(message)?;
        let mut client = self.lease_client();
        Ok(match client.lease_grant(request).await {
            Ok(granted) => {
                let granted = granted.into_inner();
                if chosen.is_none_or(|id| id == 0) {
                    ensure!(granted.id > 0, "the server chose lease id {}", granted.id);
                    self.mask.leases.insert(granted.id, name);
                }
                print::grant(&self.mask, &granted)
            }
            Err(status) => error(&status),
        })
    }

    /// Awaits that a key has gone.
    async fn await_expiry(&mut self, args: &mut Args) -> Result<String> {
        let key = args.bytes()?;
        let deadline = Instant::now() + CONDITION_DEADLINE;
        while !self.read_from(self.asked, &key).await?.kvs.is_empty() {
            ensure!(Instant::now() < deadline, "the key did not expire");
            tokio::time::sleep(POLL).await;
        }
        Ok("expired".to_owned())
    }

    /// Ends every lease that this member knows.
    pub(super) async fn revoke_all(&mut self) -> Result<()> {
        let mut client = self.lease_client();
        let leases = client
            .lease_leases(LeaseLeasesRequest {})
            .await?
            .into_inner()
            .leases;
        for lease in leases {
            // One that expires meanwhile is gone as well.
            let _ = client
                .lease_revoke(LeaseRevokeRequest { id: lease.id })
                .await;
        }
        Ok(())
    }

    /// Awaits that the cluster takes membership changes (unless asked `once`): not until all members
    /// have been connected for five seconds.
    pub(super) async fn membership(&mut self, name: &str, args: &mut Args) -> Result<String> {
        let deadline = match args.flag("once") {
            true => Instant::now(),
            false => Instant::now() + CONDITION_DEADLINE,
        };
        loop {
            let mut again = args.clone();
            let output = self.try_membership(name, &mut again).await?;
            if !output.ends_with("unhealthy cluster") || Instant::now() >= deadline {
                *args = again;
                return Ok(output);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn try_membership(&mut self, name: &str, args: &mut Args) -> Result<String> {
        let mut client = ClusterClient::new(self.channel());
        match name {
            "member-add" => return self.add_member(args).await,
            "join" => {
                let name = args.word()?;
                let id = self.mask.parse_member(&name)?;
                let url = self
                    .mask
                    .urls
                    .iter()
                    .find(|(_, n)| **n == format!("peer-url-{name}"));
                let port = url
                    .and_then(|(url, _)| url.rsplit_once(':'))
                    .context("not added")?
                    .1;
                self.cluster.join(&name, port.parse()?, id)?;
                self.name_members();
                return Ok(String::new());
            }
            _ => {}
        }
        let mask = &self.mask;
        macro_rules! listed {
            ($call:expr, $label:expr) => {
                reply($call, |r| {
                    let head = mask.header(r.header.as_ref());
                    format!("{}{head}{}", $label, print::members(mask, &r.members))
                })
                .await
            };
        }
        Ok(match name {
            "members" => {
                let linearizable = args.flag("linearizable");
                let request = self.request(MemberListRequest { linearizable })?;
                listed!(client.member_list(request), "members")
            }
            "member-remove" => {
                let id = mask.parse_member(&args.word()?)?;
                let request = self.request(MemberRemoveRequest { id })?;
                listed!(client.member_remove(request), "removed")
            }
            "member-update" => {
                let id = mask.parse_member(&args.word()?)?;
                let peer_ur_ls = self.urls(args)?;
                let request = self.request(MemberUpdateRequest { id, peer_ur_ls })?;
                listed!(client.member_update(request), "updated")
            }
            "member-promote" => {
                let id = mask.parse_member(&args.word()?)?;
                let request = self.request(MemberPromoteRequest { id })?;
                listed!(client.member_promote(request), "promoted")
            }
            _ => bail!("no such command: {name}"),
        })
    }

    /// `peer=` values: a URL, or `free` for one that nobody serves, or a name of a known URL.
    fn urls(&self, args: &mut Args) -> Result<Vec<String>> {
        let mut urls = Vec::new();
        for text in args.values("peer") {
            let known = self.mask.urls.iter().find(|(_, name)| **name == text);
            urls.push(match known {
                Some((url, _)) => url.clone(),
                None if text == "free" => {
                    format!("http://127.0.0.1:{}", crate::oracle::free_port()?)
                }
                None => text,
            });
        }
        Ok(urls)
    }

    /// `member-add NAME peer=free [learner]` gives the new member and its URL a name.
    async fn add_member(&mut self, args: &mut Args) -> Result<String> {
        let is_learner = args.flag("learner");
        let name = args.word()?;
        let peer_ur_ls = self.urls(args)?;
        let request = self.request(MemberAddRequest {
            peer_ur_ls,
            is_learner,
        })?;
        let added = match ClusterClient::new(self.channel()).member_add(request).await {
            Ok(added) => added.into_inner(),
            Err(status) => return Ok(error(&status)),
        };
        let member = added.member.as_ref().context("no member in the reply")?;
        self.mask.members.insert(member.id, name.clone());
        for url in &member.peer_ur_ls {
            self.mask
                .urls
                .insert(url.clone(), format!("peer-url-{name}"));
        }
        let head = self.mask.header(added.header.as_ref());
        let one = print::member(&self.mask, member);
        Ok(format!(
            "added{head} {one}{}",
            print::members(&self.mask, &added.members)
        ))
    }

    pub(super) async fn maintenance(&mut self, name: &str, args: &mut Args) -> Result<String> {
        let mut client = MaintenanceClient::new(self.channel());
        let mask = &self.mask;
        Ok(match name {
            "status" => {
                let new_fields = args.flag("new_fields");
                let request = self.request(StatusRequest {})?;
                reply(client.status(request), |r| {
                    print::status(mask, r, new_fields)
                })
                .await
            }
            "alarm" => {
                let request = self.request(self.alarm_request(args)?)?;
                reply(client.alarm(request), |r| print::alarms(mask, r)).await
            }
            "hash" => {
                let request = self.request(HashRequest {})?;
                reply(client.hash(request), |r| {
                    let head = mask.header(r.header.as_ref());
                    format!("hash{head}{}", if r.hash == 0 { " 0" } else { "" })
                })
                .await
            }
            "hashkv" => return self.hash_kv(args).await,
            "defrag" => {
                let request = self.request(DefragmentRequest {})?;
                let call = client.defragment(request);
                reply(call, |r| {
                    print::header_only(mask, "defragment", r.header.as_ref())
                })
                .await
            }
            "move-leader" => {
                let to = args.word()?;
                let target_id = match to.as_str() {
                    "leader" | "follower" => self.cluster.members[self.member_index(&to).await?].id,
                    _ => mask.parse_member(&to)?,
                };
                let request = self.request(MoveLeaderRequest { target_id })?;
                let call = client.move_leader(request);
                reply(call, |r| {
                    print::header_only(mask, "move-leader", r.header.as_ref())
                })
                .await
            }
            "snapshot" => return self.snapshot().await,
            "downgrade" => {
                let action = match args.word()?.as_str() {
                    "validate" => DowngradeAction::Validate,
                    "enable" => DowngradeAction::Enable,
                    _ => DowngradeAction::Cancel,
                };
                let version = args.optional_word().unwrap_or_default();
                let mut message = DowngradeRequest {
                    version,
                    ..Default::default()
                };
                message.set_action(action);
                let request = self.request(message)?;
                reply(client.downgrade(request), |r| {
                    let head = mask.header(r.header.as_ref());
                    format!("downgrade{head} version={:?}", r.version)
                })
                .await
            }
            "health" => {
                let service = args.optional_word().unwrap_or_default();
                let request = self.request(HealthCheckRequest { service })?;
                let mut client = HealthClient::new(self.channel());
                reply(client.check(request), |r| {
                    r.status().as_str_name().to_owned()
                })
                .await
            }
            "health-watch" => {
                let service = args.optional_word().unwrap_or_default();
                let request = self.request(HealthCheckRequest { service })?;
                let mut client = HealthClient::new(self.channel());
                match client.watch(request).await {
                    Ok(stream) => match stream.into_inner().message().await {
                        Ok(first) => first.map_or("end", |r| r.status().as_str_name()).to_owned(),
                        Err(status) => error(&status),
                    },
                    Err(status) => error(&status),
                }
            }
            _ => bail!("no such command: {name}"),
        })
    }

    fn alarm_request(&self, args: &mut Args) -> Result<AlarmRequest> {
        let action = match args.word()?.as_str() {
            "get" => AlarmAction::Get,
            "activate" => AlarmAction::Activate,
            _ => AlarmAction::Deactivate,
        };
        let alarm = match args.optional_word().as_deref() {
            None | Some("NONE") => AlarmType::None,
            Some("NOSPACE") => AlarmType::Nospace,
            Some(_) => AlarmType::Corrupt,
        };
        let member = args.value("member").unwrap_or_else(|| "0".to_owned());
        let mut request = AlarmRequest {
            member_id: self.mask.parse_member(&member)?,
            ..Default::default()
        };
        request.set_action(action);
        request.set_alarm(alarm);
        Ok(request)
    }

    /// HashKV: exact on fresh servers (`show`), and compared between all members otherwise.
    async fn hash_kv(&mut self, args: &mut Args) -> Result<String> {
        let revision = self.mask.revision_of(args, "rev")?;
        let (show, new_fields) = (args.flag("show"), args.flag("new_fields"));
        let mut hashes = Vec::new();
        for index in 0..self.cluster.members.len() {
            let member = &self.cluster.members[index];
            // A member hashes what it has: let it catch up first.
            self.read_from(index, b"x").await?;
            let request = self.request(HashKvRequest { revision })?;
            match MaintenanceClient::new(member.channel.clone())
                .hash_kv(request)
                .await
            {
                Ok(reply) => hashes.push(reply.into_inner()),
                Err(status) => return Ok(error(&status)),
            }
        }
        let first = hashes.first().context("no member")?;
        let equal = hashes
            .iter()
            .all(|h| (h.hash, h.compact_revision) == (first.hash, first.compact_revision));
        let compacted = match first.compact_revision {
            -1 => "none".to_owned(),
            revision => self.mask.revision(revision),
        };
        let mut text = format!("hashkv equal={equal} compact_revision={compacted}");
        if show {
            text.push_str(&format!(" hash={}", first.hash));
        }
        if new_fields {
            text.push_str(&format!(
                " hash_revision={}",
                self.mask.revision(first.hash_revision)
            ));
        }
        Ok(text)
    }

    /// Snapshot: the shape that `etcdctl snapshot save` relies on.
    async fn snapshot(&mut self) -> Result<String> {
        let request = self.request(SnapshotRequest {})?;
        let mut client = MaintenanceClient::new(self.channel());
        let mut stream = match client.snapshot(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Ok(error(&status)),
        };
        let (mut bytes, mut last_blob, mut remaining) = (0, 0, u64::MAX);
        let mut falling = true;
        while let Some(chunk) = stream.message().await? {
            falling &= chunk.remaining_bytes <= remaining;
            remaining = chunk.remaining_bytes;
            bytes += chunk.blob.len();
            last_blob = chunk.blob.len();
        }
        let whole =
            bytes > SNAPSHOT_HASH_BYTES && bytes % SNAPSHOT_BLOCK_BYTES == SNAPSHOT_HASH_BYTES;
        Ok(format!(
            "snapshot blocks-and-hash={whole} last-blob={last_blob} remaining={remaining} \
             remaining-falls={falling}"
        ))
    }
}
