//! Compiles the .proto files with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // etcd's services are answered by a service of our own; only their clients are generated.
    let etcd = [
        "etcd/rpc.proto",
        "etcd/v3lock.proto",
        "etcd/v3election.proto",
        "grpc/health.proto",
    ];
    let imported = ["etcd/kv.proto", "etcd/auth.proto"];
    let peer = ["triglot/peer.proto"];
    for file in etcd.iter().chain(&imported).chain(&peer) {
        println!("cargo::rerun-if-changed={file}");
    }
    tonic_prost_build::configure()
        .bytes(".")
        .build_server(false)
        .compile_fds(protox::compile(etcd, ["."])?)?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(protox::compile(peer, ["."])?)?;
    Ok(())
}
