//! Members: add, remove, update, list, promote. These headers have no revision.

use super::Ops;
use crate::errors::{self, Error};
use crate::wire::Header;
use gateway::keyspace::Revision;
use gateway::url;
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
            peer_urls: peer_urls(&request.peer_ur_ls)?,
            learner: request.is_learner,
            ..NewMember::default()
        };
        self.gate.reader().check_root(&self.by)?;
        let (member, _) = self.gate.member_add(new, HEALTHY_AFTER).await?;
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
        let gate = &self.gate;
        gate.member_remove(request.id, None, HEALTHY_AFTER).await?;
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
        self.gate.member_promote(request.id, None).await?;
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

/// A member's peers reach it at one URL or more.
fn peer_urls(urls: &[String]) -> Result<Vec<String>, Error> {
    let urls = url::sorted(urls).ok().filter(|urls| !urls.is_empty());
    urls.ok_or(errors::MEMBER_BAD_URLS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_are_sorted_and_all_good() {
        let of =
            |urls: &[&str]| peer_urls(&urls.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(
            of(&["http://b:2380", "http://a:2380"]).unwrap(),
            ["http://a:2380", "http://b:2380"]
        );
        for bad in [&[][..], &["http://a:1", "http://a:x"], &["http://a"]] {
            assert_eq!(of(bad), Err(errors::MEMBER_BAD_URLS), "{bad:?}");
        }
    }
}
