//! The messages and services on the wire: etcd's interface as we spell it (packages, names and
//! field numbers are etcd's), the standard gRPC health service, and what our members say to each
//! other. Types only: it must never know what any of them means.

#![allow(
    missing_docs,
    reason = "generated from .proto files, which carry the explanations"
)]
#![allow(clippy::all, clippy::pedantic, reason = "generated code")]

/// etcd v3's key-value pair and event.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
/// etcd v3's permissions.
pub mod authpb {
    tonic::include_proto!("authpb");
}
/// etcd v3's main services.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
/// etcd v3's lock service.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
/// etcd v3's election service.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
/// The gRPC health service.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
/// What members say to each other.
pub mod peer {
    tonic::include_proto!("triglot.peer");
}
