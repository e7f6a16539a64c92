use std::time::Instant;
use vecmill::engine::load::*;
use vecmill::ragged::*;
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let t = Instant::now();
    let loaded = load_dir(std::path::Path::new(&dir), &Options { device: Some(Device::Cpu), ..Default::default() }).unwrap();
    println!("load {:?}", t.elapsed());
    let t = Instant::now();
    let enc = vecmill::service::tokenizer::TextEncoder::load(&loaded.info).unwrap();
    println!("tokenizer {:?}", t.elapsed());
    let _ = enc;
    for (b, l) in [(32, 128), (8, 512), (1, 14)] {
        let texts: Vec<_> = (0..b).map(|i| Tokens::whole((0..l).map(|j| 1000 + (i * 37 + j * 11) % 20000).collect())).collect();
        let packed = Packed::new(&texts);
        let mut best = f64::MAX;
        for _ in 0..(if b == 1 { 30 } else { 4 }) {
            let t = Instant::now();
            loaded.pipeline.encode(&packed).unwrap();
            best = best.min(t.elapsed().as_secs_f64());
        }
        println!("{b} x {l}: {:.1} ms, {:.0} tok/s", best * 1e3, (b * l) as f64 / best);
    }
}
