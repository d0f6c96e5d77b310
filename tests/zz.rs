#[test]
fn z() {
    std::fs::write("dpdk-config/haechi.schema.json", haechi::config::schema_json()).unwrap();
}
