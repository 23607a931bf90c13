//! The KV service: `get put del compact stream`, and transactions built line by line:
//!
//! ```text
//! txn inner              # builds a transaction with a name, to be nested
//! if version b eq 0
//! then put b 1
//! txn                    # the outer one
//! if value a eq 1 end=z
//! then put a 2
//! then txn inner
//! else get a
//! commit
//! ```
//!
//! `check value a eq 1` is a transaction of nothing but that compare.

use anyhow::{Context, Result, bail, ensure};
use proto::etcdserverpb::compare::TargetUnion;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse,
    RequestOp, TxnRequest,
};
use tonic::transport::Channel;

use super::super::args::{Args, parse_number, to_bytes};
use super::{Session, error, print, reply};

impl Session<'_> {
    fn kv_client(&self) -> KvClient<Channel> {
        KvClient::new(self.channel())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }

    pub(super) async fn kv(&mut self, name: &str, args: &mut Args) -> Result<String> {
        let mut client = self.kv_client();
        let mask = &self.mask;
        Ok(match name {
            "get" => {
                let request = self.request(self.range_request(args)?)?;
                reply(client.range(request), |r| print::range(mask, r)).await
            }
            "put" => {
                let request = self.request(self.put_request(args)?)?;
                reply(client.put(request), |r| print::put(mask, r)).await
            }
            "del" => {
                let request = self.request(self.delete_request(args)?)?;
                reply(client.delete_range(request), |r| print::delete(mask, r)).await
            }
            "compact" => {
                let physical = args.flag("physical");
                let revision = mask.parse_revision(&args.word()?)?;
                let request = self.request(CompactionRequest { revision, physical })?;
                let print = |r: &_| print::header_only(mask, "compact", header(r));
                reply(client.compact(request), print).await
            }
            _ => self.range_stream(args).await?,
        })
    }

    /// RangeStream: merges the chunks into one Range reply and shows that only the last carried
    /// header, count and more.
    async fn range_stream(&mut self, args: &mut Args) -> Result<String> {
        let request = self.request(self.range_request(args)?)?;
        let mut stream = match self.kv_client().range_stream(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Ok(error(&status)),
        };
        let (mut merged, mut chunks) = (RangeResponse::default(), Vec::new());
        loop {
            let chunk = match stream.message().await {
                Ok(Some(message)) => message.range_response.context("an empty chunk")?,
                Ok(None) => break,
                Err(status) => return Ok(error(&status)),
            };
            ensure!(
                merged.header.is_none(),
                "a chunk follows the one with the header"
            );
            chunks.push(chunk.kvs.len().to_string());
            merged.header = chunk.header;
            merged.count = chunk.count;
            merged.more = chunk.more;
            merged.kvs.extend(chunk.kvs);
        }
        let first = chunks.first().cloned().unwrap_or_default();
        let several = if chunks.len() > 1 {
            " and more chunks"
        } else {
            ""
        };
        Ok(format!(
            "first chunk: {first} keys{several}\n{}",
            print::range(&self.mask, &merged)
        ))
    }

    pub(super) async fn transaction(&mut self, name: &str, args: &mut Args) -> Result<String> {
        match name {
            "txn" => {
                self.txn = args.optional_word().unwrap_or_default();
                self.txns.insert(self.txn.clone(), TxnRequest::default());
            }
            "commit" => {
                let txn = self.txns.remove("").context("no txn to commit")?;
                return self.send_txn(txn).await;
            }
            "if" => {
                let compare = self.compare(args)?;
                self.building()?.compare.push(compare);
            }
            "check" => {
                let compare = vec![self.compare(args)?];
                return self
                    .send_txn(TxnRequest {
                        compare,
                        ..Default::default()
                    })
                    .await;
            }
            _ => {
                let op = self.operation(args)?;
                let txn = self.building()?;
                if name == "then" {
                    txn.success.push(op);
                } else {
                    txn.failure.push(op);
                }
            }
        }
        Ok(String::new())
    }

    async fn send_txn(&self, txn: TxnRequest) -> Result<String> {
        let request = self.request(txn)?;
        let mut client = self.kv_client();
        Ok(reply(client.txn(request), |r| print::txn(&self.mask, r)).await)
    }

    fn building(&mut self) -> Result<&mut TxnRequest> {
        self.txns
            .get_mut(&self.txn)
            .context("no txn is being built")
    }

    fn operation(&self, args: &mut Args) -> Result<RequestOp> {
        let request = match args.word()?.as_str() {
            "get" => Some(Op::RequestRange(self.range_request(args)?)),
            "put" => Some(Op::RequestPut(self.put_request(args)?)),
            "del" => Some(Op::RequestDeleteRange(self.delete_request(args)?)),
            "txn" => {
                let name = args.word()?;
                let inner = self.txns.get(&name).context("no txn of that name")?;
                Some(Op::RequestTxn(inner.clone()))
            }
            "nothing" => None,
            other => bail!("no such operation: {other}"),
        };
        Ok(RequestOp { request })
    }

    /// `TARGET KEY RELATION VALUE`; `none` as value leaves the union empty.
    fn compare(&self, args: &mut Args) -> Result<Compare> {
        let (target, key, relation) = (args.word()?, args.bytes()?, args.word()?);
        let value = args.word()?;
        let (target, union) = match target.as_str() {
            "version" => (0, TargetUnion::Version(parse_number(&value).unwrap_or(0))),
            "create" => (
                1,
                TargetUnion::CreateRevision(self.mask.parse_revision(&value)?),
            ),
            "mod" => (
                2,
                TargetUnion::ModRevision(self.mask.parse_revision(&value)?),
            ),
            "value" => (3, TargetUnion::Value(to_bytes(&value)?.into())),
            "lease" => (4, TargetUnion::Lease(self.mask.parse_lease(&value)?)),
            number => (number.parse()?, TargetUnion::Version(0)),
        };
        let result = match relation.as_str() {
            "eq" => 0,
            "gt" => 1,
            "lt" => 2,
            "ne" => 3,
            number => number.parse()?,
        };
        let range_end = args.range_end(&key)?.into();
        Ok(Compare {
            result,
            target,
            key: key.into(),
            range_end,
            target_union: (!args.flag("unset")).then_some(union),
        })
    }

    fn range_request(&self, args: &mut Args) -> Result<RangeRequest> {
        let mask = &self.mask;
        let sort_order = match args.value("sort").as_deref() {
            None => 0,
            Some("ascend") => 1,
            Some("descend") => 2,
            Some(number) => number.parse()?,
        };
        let sort_target = match args.value("by").as_deref() {
            None | Some("key") => 0,
            Some("version") => 1,
            Some("create") => 2,
            Some("mod") => 3,
            Some("value") => 4,
            Some(number) => number.parse()?,
        };
        let mut request = RangeRequest {
            limit: args.number("limit")?,
            revision: mask.revision_of(args, "rev")?,
            sort_order,
            sort_target,
            serializable: args.flag("serializable"),
            keys_only: args.flag("keys_only"),
            count_only: args.flag("count_only"),
            min_mod_revision: mask.revision_of(args, "min_mod")?,
            max_mod_revision: mask.revision_of(args, "max_mod")?,
            min_create_revision: mask.revision_of(args, "min_create")?,
            max_create_revision: mask.revision_of(args, "max_create")?,
            ..Default::default()
        };
        (request.key, request.range_end) = key_and_end(args)?;
        Ok(request)
    }

    fn put_request(&self, args: &mut Args) -> Result<PutRequest> {
        let lease = args.value("lease");
        let mut request = PutRequest {
            lease: lease.map_or(Ok(0), |text| self.mask.parse_lease(&text))?,
            prev_kv: args.flag("prev_kv"),
            ignore_value: args.flag("ignore_value"),
            ignore_lease: args.flag("ignore_lease"),
            key: args.bytes()?.into(),
            ..Default::default()
        };
        let size = usize::try_from(args.number("size")?)?;
        request.value = match args.optional_word() {
            Some(word) => to_bytes(&word)?.into(),
            None => vec![b'x'; size].into(),
        };
        Ok(request)
    }

    fn delete_request(&self, args: &mut Args) -> Result<DeleteRangeRequest> {
        let prev_kv = args.flag("prev_kv");
        let (key, range_end) = key_and_end(args)?;
        Ok(DeleteRangeRequest {
            key,
            range_end,
            prev_kv,
        })
    }

    /// The revision that a script on shared servers starts from: all keys and leases of the
    /// scripts before it are gone.
    pub(super) async fn clean(&mut self, own_servers: bool) -> Result<i64> {
        if !own_servers {
            self.revoke_all().await?;
            let everything = DeleteRangeRequest {
                key: vec![0].into(),
                range_end: vec![0].into(),
                prev_kv: false,
            };
            self.kv_client().delete_range(everything).await?;
        }
        self.revision().await
    }

    /// The store's current revision.
    pub(super) async fn revision(&self) -> Result<i64> {
        let reply = self.read_from(self.asked, b"x").await?;
        Ok(reply.header.context("no header")?.revision)
    }

    /// A linearizable read of one key from one member.
    pub(super) async fn read_from(&self, index: usize, key: &[u8]) -> Result<RangeResponse> {
        let read = RangeRequest {
            key: key.to_vec().into(),
            ..Default::default()
        };
        let mut client = KvClient::new(self.cluster.members[index].channel.clone());
        Ok(client.range(read).await?.into_inner())
    }
}

fn header(
    reply: &proto::etcdserverpb::CompactionResponse,
) -> Option<&proto::etcdserverpb::ResponseHeader> {
    reply.header.as_ref()
}

fn key_and_end(args: &mut Args) -> Result<(bytes::Bytes, bytes::Bytes)> {
    let key = args.bytes()?;
    let end = args.range_end(&key)?;
    Ok((key.into(), end.into()))
}
