//! Weight files: any bytes, and any bytes as the header of a file with some data.
#![no_main]

use kudos::nn::weights::Checkpoint;

fn open(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("model.safetensors");
    std::fs::write(&path, bytes).expect("a small file");
    let Ok(checkpoint) = Checkpoint::open(dir.path()) else { return };
    for (name, stored) in &checkpoint.tensors {
        let len: usize = stored.shape.iter().product();
        assert!(len as u64 <= 8 * bytes.len() as u64 || stored.bytes() == 0, "more memory than the file has");
        let _ = checkpoint.read(name, &mut vec![0.0; len]);
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    open(data);
    let header = (data.len() as u64).to_le_bytes();
    open(&[&header[..], data, &[0; 64]].concat());
});
