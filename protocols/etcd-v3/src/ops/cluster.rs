//! Members: add, remove, update, list, promote. These headers have no revision.

use super::Ops;
use crate::errors::{self, Error};
use crate::wire::Header;
use gateway::keyspace::Revision;
use gateway::{Description, HEALTHY_AFTER, NewMember};
use proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, ResponseHeader,
};

impl Ops {
    /// Adds a voter or a learner.
    pub async fn member_add(&self, request: MemberAddRequest) -> Result<MemberAddResponse, Error> {
        let new = NewMember {
            peer_urls: peer_urls(request.peer_ur_ls)?,
            learner: request.is_learner,
            ..NewMember::default()
        };
        self.gate.reader().check_root(&self.by)?;
        let member = self.gate.member_add(new, HEALTHY_AFTER).await?;
        Ok(MemberAddResponse {
            header: self.cluster_header(),
            member: Some(message(member)),
            members: self.members(),
        })
    }

    /// Removes a member.
    pub async fn member_remove(
        &self,
        request: MemberRemoveRequest,
    ) -> Result<MemberRemoveResponse, Error> {
        self.gate.reader().check_root(&self.by)?;
        self.gate.member_remove(request.id, HEALTHY_AFTER).await?;
        Ok(MemberRemoveResponse {
            header: self.cluster_header(),
            members: self.members(),
        })
    }

    /// Changes where a member's peers reach it.
    pub async fn member_update(
        &self,
        request: MemberUpdateRequest,
    ) -> Result<MemberUpdateResponse, Error> {
        let description = Description {
            id: request.id,
            peer_urls: Some(request.peer_ur_ls),
            ..Description::default()
        };
        self.gate.reader().check_root(&self.by)?;
        self.gate.member_update(description).await?;
        Ok(MemberUpdateResponse {
            header: self.cluster_header(),
            members: self.members(),
        })
    }

    /// Lists the members.
    pub async fn member_list(
        &self,
        request: MemberListRequest,
    ) -> Result<MemberListResponse, Error> {
        self.gate.reader().check_known(&self.by)?;
        if request.linearizable {
            self.gate.linearize().await?;
        }
        Ok(MemberListResponse {
            header: self.cluster_header(),
            members: self.members(),
        })
    }

    /// Gives a learner its vote.
    pub async fn member_promote(
        &self,
        request: MemberPromoteRequest,
    ) -> Result<MemberPromoteResponse, Error> {
        self.gate.reader().check_root(&self.by)?;
        self.gate.member_promote(request.id).await?;
        Ok(MemberPromoteResponse {
            header: self.cluster_header(),
            members: self.members(),
        })
    }

    fn members(&self) -> Vec<Member> {
        self.gate.members().into_iter().map(message).collect()
    }

    fn cluster_header(&self) -> Option<ResponseHeader> {
        let header: Header = self.header(Revision(0));
        Some(header.into())
    }
}

fn message(member: gateway::Member) -> Member {
    Member {
        id: member.id,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.learner,
    }
}

/// Peer URLs are a scheme, a host and a port, and nothing behind; etcd keeps them sorted.
fn peer_urls(mut urls: Vec<String>) -> Result<Vec<String>, Error> {
    if urls.is_empty() || !urls.iter().all(|url| is_peer_url(url)) {
        return Err(errors::MEMBER_BAD_URLS);
    }
    urls.sort_unstable();
    Ok(urls)
}

fn is_peer_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    match scheme {
        "http" | "https" => {
            let port = rest.rsplit_once(':').map(|(_, port)| port);
            !rest.contains(['/', '?', '#']) && port.is_some_and(|port| port.parse::<u16>().is_ok())
        }
        "unix" | "unixs" => !rest.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_are_scheme_host_and_port() {
        let of = |urls: &[&str]| peer_urls(urls.iter().map(ToString::to_string).collect());
        assert_eq!(
            of(&["http://b:2380", "http://a:2380"]).unwrap(),
            ["http://a:2380", "http://b:2380"]
        );
        for good in ["https://127.0.0.1:1", "http://[::1]:2380", "unix://a:1"] {
            assert!(of(&[good]).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a:2380",
            "ftp://a:1",
            "http://a",
            "http://a:x",
            "http://a:1/path",
            "http://a:99999",
        ] {
            assert_eq!(of(&[bad]), Err(errors::MEMBER_BAD_URLS), "{bad}");
        }
        assert_eq!(of(&[]), Err(errors::MEMBER_BAD_URLS));
    }
}
