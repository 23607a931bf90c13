//! Prints replies field by field. Every message is taken apart completely, so that a new field
//! cannot go unseen; a field that has its default value is not printed.

use std::fmt::Write as _;

use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{
    AlarmMember, AlarmResponse, DeleteRangeResponse, LeaseGrantResponse, LeaseKeepAliveResponse,
    LeaseTimeToLiveResponse, Member, PutResponse, RangeResponse, ResponseHeader, ResponseOp,
    StatusResponse, TxnResponse, WatchResponse,
};
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};

use super::super::args::shown;
use super::mask::Mask;

/// `key=value` with its revisions, on a line of its own.
pub fn key_value(mask: &Mask, pair: &KeyValue) -> String {
    let KeyValue {
        key,
        create_revision,
        mod_revision,
        version,
        value,
        lease,
    } = pair;
    let mut text = format!("{}={}", shown(key), shown(value));
    if *create_revision != 0 {
        let _ = write!(text, " create={}", mask.revision(*create_revision));
    }
    if *mod_revision != 0 {
        let _ = write!(text, " mod={}", mask.revision(*mod_revision));
    }
    if *version != 0 {
        let _ = write!(text, " version={version}");
    }
    if *lease != 0 {
        let _ = write!(text, " lease={}", mask.lease(*lease));
    }
    text
}

fn pairs(mask: &Mask, label: &str, pairs: &[KeyValue]) -> String {
    pairs
        .iter()
        .map(|pair| format!("\n  {label}{}", key_value(mask, pair)))
        .collect()
}

/// The reply to Range.
pub fn range(mask: &Mask, reply: &RangeResponse) -> String {
    let RangeResponse {
        header,
        kvs,
        more,
        count,
    } = reply;
    let head = mask.header(header.as_ref());
    let more = if *more { " more" } else { "" };
    format!("range{head} count={count}{more}{}", pairs(mask, "", kvs))
}

/// The reply to Put.
pub fn put(mask: &Mask, reply: &PutResponse) -> String {
    let PutResponse { header, prev_kv } = reply;
    let head = mask.header(header.as_ref());
    format!("put{head}{}", pairs(mask, "prev ", prev_kv.as_slice()))
}

/// The reply to DeleteRange.
pub fn delete(mask: &Mask, reply: &DeleteRangeResponse) -> String {
    let DeleteRangeResponse {
        header,
        deleted,
        prev_kvs,
    } = reply;
    let head = mask.header(header.as_ref());
    let prev = pairs(mask, "prev ", prev_kvs);
    format!("delete{head} deleted={deleted}{prev}")
}

/// The reply to Txn, nested replies indented.
pub fn txn(mask: &Mask, reply: &TxnResponse) -> String {
    let TxnResponse {
        header,
        succeeded,
        responses,
    } = reply;
    let head = mask.header(header.as_ref());
    let branch = if *succeeded { "then" } else { "else" };
    let mut text = format!("txn{head} {branch}");
    let inner: Vec<_> = responses
        .iter()
        .map(|reply| response(mask, reply))
        .collect();
    for same in inner.chunk_by(|one, next| one == next) {
        let _ = write!(text, "\n  {}", same[0].replace('\n', "\n  "));
        if same.len() > 1 {
            let _ = write!(text, " ({} times)", same.len());
        }
    }
    text
}

fn response(mask: &Mask, reply: &ResponseOp) -> String {
    match &reply.response {
        Some(Response::ResponseRange(reply)) => range(mask, reply),
        Some(Response::ResponsePut(reply)) => put(mask, reply),
        Some(Response::ResponseDeleteRange(reply)) => delete(mask, reply),
        Some(Response::ResponseTxn(reply)) => txn(mask, reply),
        None => "empty".to_owned(),
    }
}

/// A reply that carries nothing but a header.
pub fn header_only(mask: &Mask, name: &str, header: Option<&ResponseHeader>) -> String {
    format!("{name}{}", mask.header(header))
}

/// The reply to LeaseGrant.
pub fn grant(mask: &Mask, reply: &LeaseGrantResponse) -> String {
    let LeaseGrantResponse {
        header,
        id,
        ttl,
        error,
    } = reply;
    let head = mask.header(header.as_ref());
    let error = if error.is_empty() {
        String::new()
    } else {
        format!(" error={error:?}")
    };
    format!("grant{head} id={} ttl={ttl}{error}", mask.lease(*id))
}

/// The reply to LeaseKeepAlive.
pub fn keep_alive(mask: &Mask, reply: &LeaseKeepAliveResponse) -> String {
    let LeaseKeepAliveResponse { header, id, ttl } = reply;
    let head = mask.header(header.as_ref());
    format!("keepalive{head} id={} ttl={ttl}", mask.lease(*id))
}

/// The reply to LeaseTimeToLive; a remaining time within the granted one is printed as `running`.
pub fn time_to_live(mask: &Mask, reply: &LeaseTimeToLiveResponse) -> String {
    let LeaseTimeToLiveResponse {
        header,
        id,
        ttl,
        granted_ttl,
        keys,
    } = reply;
    let head = mask.header(header.as_ref());
    let ttl = if (0..=*granted_ttl).contains(ttl) && *granted_ttl > 0 {
        "running".to_owned()
    } else {
        ttl.to_string()
    };
    // The original gives them in the order of a hash map.
    let mut keys: Vec<_> = keys
        .iter()
        .map(|key| format!(" key={}", shown(key)))
        .collect();
    keys.sort();
    let keys = keys.concat();
    format!(
        "ttl{head} id={} ttl={ttl} granted={granted_ttl}{keys}",
        mask.lease(*id)
    )
}

/// One event with the key's new and previous version.
pub fn event(mask: &Mask, event: &Event) -> String {
    let kind = match event.r#type() {
        EventType::Put => "PUT",
        EventType::Delete => "DELETE",
    };
    let Event {
        r#type: _,
        kv,
        prev_kv,
    } = event;
    let now = kv
        .as_ref()
        .map_or_else(|| "no kv".to_owned(), |kv| key_value(mask, kv));
    let prev = prev_kv
        .as_ref()
        .map_or_else(String::new, |kv| format!(" (prev {})", key_value(mask, kv)));
    format!("{kind} {now}{prev}")
}

/// One message of a watch stream.
pub fn watch(mask: &Mask, reply: &WatchResponse) -> String {
    let WatchResponse {
        header,
        watch_id,
        created,
        canceled,
        compact_revision,
        cancel_reason,
        fragment,
        events,
    } = reply;
    let mut text = format!("watch {watch_id}{}", mask.header(header.as_ref()));
    for (set, name) in [
        (created, " created"),
        (canceled, " canceled"),
        (fragment, " fragment"),
    ] {
        if *set {
            text.push_str(name);
        }
    }
    if *compact_revision != 0 {
        let _ = write!(
            text,
            " compact_revision={}",
            mask.revision(*compact_revision)
        );
    }
    if !cancel_reason.is_empty() {
        let _ = write!(text, " reason={cancel_reason:?}");
    }
    for one in events {
        let _ = write!(text, "\n  {}", event(mask, one));
    }
    text
}

/// The members a reply lists, in the order of their names.
pub fn members(mask: &Mask, members: &[Member]) -> String {
    let mut lines: Vec<_> = members
        .iter()
        .map(|m| format!("\n  {}", member(mask, m)))
        .collect();
    lines.sort();
    lines.concat()
}

/// One member.
pub fn member(mask: &Mask, member: &Member) -> String {
    let Member {
        id,
        name,
        peer_ur_ls,
        client_ur_ls,
        is_learner,
    } = member;
    let urls = |urls: &[String]| {
        urls.iter()
            .map(|url| mask.url(url))
            .collect::<Vec<_>>()
            .join(",")
    };
    let learner = if *is_learner { " learner" } else { "" };
    let id = mask
        .members
        .get(id)
        .cloned()
        .unwrap_or_else(|| "unknown".to_owned());
    format!(
        "member {id} name={name:?} peer={} client={}{learner}",
        urls(peer_ur_ls),
        urls(client_ur_ls),
    )
}

/// The reply to Alarm.
pub fn alarms(mask: &Mask, reply: &AlarmResponse) -> String {
    let AlarmResponse { header, alarms } = reply;
    let mut text = format!("alarm{}", mask.header(header.as_ref()));
    for AlarmMember { member_id, alarm } in alarms {
        let name = proto::etcdserverpb::AlarmType::try_from(*alarm)
            .map_or_else(|_| alarm.to_string(), |kind| kind.as_str_name().to_owned());
        let _ = write!(text, "\n  {name} on {}", mask.member(*member_id));
    }
    text
}

/// The reply to Status: numbers that grow are only shown to be there. `new_fields` are those that
/// 3.4 does not have.
pub fn status(mask: &Mask, reply: &StatusResponse, new_fields: bool) -> String {
    let StatusResponse {
        header,
        version,
        db_size,
        leader,
        raft_index,
        raft_term,
        raft_applied_index,
        errors,
        db_size_in_use,
        is_learner,
        storage_version,
        db_size_quota,
        downgrade_info,
    } = reply;
    let mut text = format!("status{}", mask.header(header.as_ref()));
    let leader = if *leader == 0 { "none" } else { "known" };
    let _ = write!(text, " leader={leader}");
    let present = [
        ("version", !version.is_empty()),
        ("db_size", *db_size > 0),
        ("db_size_in_use", *db_size_in_use > 0),
        ("in_use<=size", db_size_in_use <= db_size),
        ("raft_index", *raft_index > 0),
        ("raft_term", *raft_term > 0),
        ("raft_applied_index", *raft_applied_index > 0),
        ("learner", *is_learner),
    ];
    for (name, _) in present.iter().filter(|(_, present)| *present) {
        let _ = write!(text, " {name}");
    }
    for error in errors {
        let _ = write!(text, "\n  error {:?}", mask.alarm_text(error));
    }
    if !new_fields {
        return text;
    }
    let _ = write!(text, "\n  storage={storage_version} quota={db_size_quota}");
    if let Some(info) = downgrade_info {
        let _ = write!(
            text,
            " downgrade={} {:?}",
            info.enabled, info.target_version
        );
    }
    text
}
