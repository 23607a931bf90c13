//! Names of members and clusters, derived as etcd derives them, so that the same flags give the same
//! ids and `etcdctl` output can be compared line by line.

use sha1::{Digest, Sha1};

/// A member's id: SHA-1 over its sorted peer URLs, the cluster token and, for a member added at
/// runtime, the second it was added (etcd's `computeMemberID`).
pub fn member_id(peer_urls: &[String], cluster_token: &str, added_at_s: Option<u64>) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(cluster_token);
    if let Some(seconds) = added_at_s {
        hash.update(seconds.to_string());
    }
    first_eight(hash)
}

/// A cluster's id: SHA-1 over its first members' ids in order (etcd's `genID`).
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut ids = member_ids.to_vec();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    for id in ids {
        hash.update(id.to_be_bytes());
    }
    first_eight(hash)
}

fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What etcd prints when it is started without flags: `8e9e05c52164694d`, `cdf818194e3a8c32`.
    #[test]
    fn the_default_member_and_cluster_have_the_ids_that_etcd_gives_them() {
        let id = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster", None);
        assert_eq!(format!("{id:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id(&[id])), "cdf818194e3a8c32");
    }

    #[test]
    fn the_order_of_peer_urls_does_not_matter_but_the_time_of_adding_does() {
        let a = "http://a:2380".to_owned();
        let b = "http://b:2380".to_owned();
        let id = member_id(&[a.clone(), b.clone()], "t", None);
        assert_eq!(id, member_id(&[b.clone(), a.clone()], "t", None));
        assert_ne!(id, member_id(&[a, b], "t", Some(1)));
    }
}
