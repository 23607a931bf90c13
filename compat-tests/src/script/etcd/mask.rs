//! Makes replies comparable: revisions become relative to the script's first (`r3`), and ids,
//! ports and sizes, which differ from run to run, become names. Everything else stays exact.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use proto::etcdserverpb::ResponseHeader;

use super::super::args::{Args, parse_number};

/// What the names of one script's run stand for.
#[derive(Default)]
pub struct Mask {
    /// The store's revision before the script's first command.
    pub first_revision: i64,
    /// The cluster id that every header must carry.
    pub cluster_id: u64,
    /// Names of member ids (`m1`, `m2`, ...).
    pub members: BTreeMap<u64, String>,
    /// The member that is being asked.
    pub asked: u64,
    /// Names that the script gave to lease ids that the server chose.
    pub leases: BTreeMap<i64, String>,
    /// Names of URLs.
    pub urls: BTreeMap<String, String>,
}

impl Mask {
    /// `r3` for the third revision after the script's first; 0 stays 0; older ones are `old`.
    pub fn revision(&self, revision: i64) -> String {
        match revision {
            ..=0 => revision.to_string(),
            _ if revision < self.first_revision => "old".to_owned(),
            _ => format!("r{}", revision - self.first_revision),
        }
    }

    /// Reads `r3`, or an absolute number.
    pub fn parse_revision(&self, text: &str) -> Result<i64> {
        match text.strip_prefix('r') {
            Some(relative) => Ok(self.first_revision + parse_number(relative)?),
            None => parse_number(text),
        }
    }

    /// The value of `key=` as a revision (`r3` is three after the script's first), 0 when absent.
    pub fn revision_of(&self, args: &mut Args, key: &str) -> Result<i64> {
        args.value(key)
            .map_or(Ok(0), |text| self.parse_revision(&text))
    }

    /// The member's name; the one being asked is `self`.
    pub fn member(&self, id: u64) -> String {
        if id == self.asked && id != 0 {
            return "self".to_owned();
        }
        let known = self.members.get(&id);
        known.cloned().unwrap_or_else(|| id.to_string())
    }

    /// An alarm as text, with names in place of member ids. Go's protobuf library deliberately
    /// varies the spaces from build to build, so that nobody compares them.
    pub fn alarm_text(&self, text: &str) -> String {
        let single = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let replace = |text: String, id: &u64| text.replace(&id.to_string(), &self.member(*id));
        self.members.keys().fold(single, replace)
    }

    /// Reads a member's name, or a number.
    pub fn parse_member(&self, text: &str) -> Result<u64> {
        if text == "self" {
            return Ok(self.asked);
        }
        match self.members.iter().find(|(_, name)| *name == text) {
            Some((id, _)) => Ok(*id),
            None => text.parse().with_context(|| format!("member {text:?}")),
        }
    }

    /// The lease's name, or its number.
    pub fn lease(&self, id: i64) -> String {
        let known = self.leases.get(&id);
        known.cloned().unwrap_or_else(|| id.to_string())
    }

    /// Reads a lease's name, or a number.
    pub fn parse_lease(&self, text: &str) -> Result<i64> {
        match self.leases.iter().find(|(_, name)| *name == text) {
            Some((id, _)) => Ok(*id),
            None => parse_number(text),
        }
    }

    /// Puts names in place of URLs.
    pub fn url(&self, url: &str) -> String {
        let known = self.urls.get(url);
        known.cloned().unwrap_or_else(|| url.to_owned())
    }

    /// ` rev=r3` for a header with the right cluster, the asked member and a term; anything
    /// unusual is spelled out.
    pub fn header(&self, header: Option<&ResponseHeader>) -> String {
        let Some(header) = header else {
            return " header=none".to_owned();
        };
        let ResponseHeader {
            cluster_id,
            member_id,
            revision,
            raft_term,
        } = header;
        let revision = self.revision(*revision);
        if (*cluster_id, *member_id) == (self.cluster_id, self.asked) && *raft_term > 0 {
            return format!(" rev={revision}");
        }
        if (*cluster_id, *member_id, *raft_term) == (0, 0, 0) {
            return format!(" bare-header(rev={revision})");
        }
        let cluster = match *cluster_id {
            id if id == self.cluster_id => "right",
            0 => "0",
            _ => "wrong",
        };
        let member = self.member(*member_id);
        format!(" header(cluster={cluster} member={member} rev={revision} term={raft_term})")
    }
}
