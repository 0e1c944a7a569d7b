use super::*;
use proptest::prelude::*;

/// How a test encodes a field; what cannot be indexed is a literal.
#[derive(Debug, Clone)]
pub(in crate::authority) struct Form {
    /// 0 to 3: indexed, and the three literals of RFC 7541 §6.2.
    kind: u8,
    by_name: bool,
    huffman: (bool, bool),
}

pub(in crate::authority) fn any_form() -> impl Strategy<Value = Form> {
    (0_u8..4, any::<bool>(), any::<(bool, bool)>()).prop_map(|(kind, by_name, huffman)| Form {
        kind,
        by_name,
        huffman,
    })
}

/// Encodes in every form that there is, with a table of its own.
pub(in crate::authority) struct Encoder {
    table: Vec<(Vec<u8>, Vec<u8>)>,
    limit: usize,
}

impl Encoder {
    pub(in crate::authority) fn new() -> Self {
        Self { table: Vec::new(), limit: 4096 }
    }

    pub(in crate::authority) fn resize(&mut self, limit: usize, block: &mut Vec<u8>) {
        self.limit = limit;
        self.evict();
        let at = block.len();
        write_integer(block, limit, 5);
        block[at] |= 0x20;
    }

    pub(in crate::authority) fn field(
        &mut self,
        (name, value): (&[u8], &[u8]),
        form: &Form,
        block: &mut Vec<u8>,
    ) {
        let fixed = STATIC_TABLE.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let own = self.table.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        let entries = || fixed.clone().chain(own.clone()).enumerate();
        let whole = entries().find(|(_, entry)| *entry == (name, value)).map(|(index, _)| index);
        let named = entries().filter(|(_, entry)| entry.0 == name).last().map(|(index, _)| index);
        let at = block.len();
        if let (0, Some(index)) = (form.kind, whole) {
            write_integer(block, index + 1, 7);
            block[at] |= 0x80;
            return;
        }
        let (mark, bits) = match form.kind {
            0 | 1 => (0x40, 6),
            2 => (0, 4),
            _ => (0x10, 4),
        };
        let index = named.filter(|_| form.by_name).map_or(0, |index| index + 1);
        write_integer(block, index, bits);
        block[at] |= mark;
        if index == 0 {
            text(name, form.huffman.0, block);
        }
        text(value, form.huffman.1, block);
        if mark == 0x40 {
            self.table.insert(0, (name.to_vec(), value.to_vec()));
            self.evict();
        }
    }

    fn evict(&mut self) {
        while self.table.iter().map(|entry| entry_bytes(&entry.0, &entry.1)).sum::<usize>() > self.limit {
            self.table.pop();
        }
    }
}

fn text(text: &[u8], huffman: bool, block: &mut Vec<u8>) {
    let coded = if huffman { huffman::tests::encode(text) } else { text.to_vec() };
    let at = block.len();
    write_integer(block, coded.len(), 7);
    if huffman {
        block[at] |= 0x80;
    }
    block.extend(coded);
}

pub(in crate::authority) fn any_list() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    // Few names and values, so that tables are used.
    let name = prop_oneof![
        Just(b":authority".to_vec()),
        Just(b"x-one".to_vec()),
        Just(b"content-type".to_vec()),
        Just(b"accept-encoding".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    let value = prop_oneof![
        Just(Vec::new()),
        Just(b"gzip, deflate".to_vec()),
        Just(b"localhost".to_vec()),
        Just(b"%2Frun%2Fapi.sock".to_vec()),
        Just(vec![b'v'; 2000]),
        proptest::collection::vec(any::<u8>(), 0..300),
    ];
    proptest::collection::vec((name, value), 0..12)
}

fn pairs(fields: &[Field]) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect()
}

proptest! {
    #[test]
    fn whatever_form_a_field_has_it_is_read(
        blocks in proptest::collection::vec(
            (any_list(), proptest::option::of(0_usize..=4096), proptest::collection::vec(any_form(), 12)),
            1..6,
        ),
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for (list, size, forms) in blocks {
            let mut block = Vec::new();
            if let Some(size) = size {
                encoder.resize(size, &mut block);
            }
            for ((name, value), form) in list.iter().zip(&forms) {
                encoder.field((name, value), form, &mut block);
            }
            let fields = decoder.decode(&block, 1 << 20).unwrap();
            prop_assert_eq!(pairs(&fields), list.clone());
            // Our own encoder says the same, to whoever has no table.
            prop_assert_eq!(Decoder::new().decode(&encode(&fields), 1 << 20).unwrap(), fields);
        }
    }

    #[test]
    fn rubbish_is_read_without_harm(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..6)) {
        let mut decoder = Decoder::new();
        for block in blocks {
            let fields = decoder.decode(&block, 4096);
            let bytes: usize =
                fields.iter().flatten().map(|field| entry_bytes(&field.name, &field.value)).sum();
            prop_assert!(bytes <= 4096);
            prop_assert!(decoder.table_bytes <= MAX_TABLE_BYTES);
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn reads(decoder: &mut Decoder, block: &str, expected: &[(&str, &str)], table_bytes: usize) {
    let fields = decoder.decode(&hex(block), 4096).unwrap();
    let expected: Vec<_> =
        expected.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
    assert_eq!(pairs(&fields), expected);
    assert_eq!(decoder.table_bytes, table_bytes);
}

#[test]
fn integers_are_those_of_rfc_7541_c_1() {
    for (bytes, bits, value) in [("0a", 5, 10), ("1f 9a 0a", 5, 1337), ("2a", 8, 42)] {
        assert_eq!(integer(&mut hex(bytes).as_slice(), bits), Some(value));
        let mut written = Vec::new();
        write_integer(&mut written, value, bits);
        assert_eq!(written, hex(bytes));
    }
    assert_eq!(integer(&mut hex("1f ff ff ff ff ff 01").as_slice(), 5), None, "too long");
    assert_eq!(integer(&mut hex("1f 9a").as_slice(), 5), None, "broken off");
}

#[test]
fn single_fields_are_those_of_rfc_7541_c_2() {
    let custom = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    reads(&mut Decoder::new(), custom, &[("custom-key", "custom-header")], 55);
    reads(&mut Decoder::new(), "040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], 0);
    let secret = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    reads(&mut Decoder::new(), secret, &[("password", "secret")], 0);
    let fields = Decoder::new().decode(&hex(secret), 4096).unwrap();
    assert!(fields[0].never_indexed);
    assert_eq!(encode(&fields), hex(secret), "and it stays so");
    reads(&mut Decoder::new(), "82", &[(":method", "GET")], 0);
}

#[test]
fn requests_are_those_of_rfc_7541_c_3_and_c_4() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let coded = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new();
        let host = (":authority", "www.example.com");
        let plain = [(":method", "GET"), (":scheme", "http"), (":path", "/"), host];
        reads(&mut decoder, blocks[0], &plain, 57);
        let cached = [plain.as_slice(), &[("cache-control", "no-cache")]].concat();
        reads(&mut decoder, blocks[1], &cached, 110);
        let custom = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            host,
            ("custom-key", "custom-value"),
        ];
        reads(&mut decoder, blocks[2], &custom, 164);
    }
}

#[test]
fn entries_leave_the_table_as_in_rfc_7541_c_5_and_c_6() {
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
         3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 \
         7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 \
         6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
    ];
    let coded = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
         1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
         e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new();
        // A table of 256 bytes.
        assert!(decoder.decode(&hex("3fe1 01"), 4096).unwrap().is_empty());
        let date = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
        let place = ("location", "https://www.example.com");
        let private = ("cache-control", "private");
        reads(&mut decoder, blocks[0], &[(":status", "302"), private, date, place], 222);
        reads(&mut decoder, blocks[1], &[(":status", "307"), private, date, place], 222);
        let cookie = ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
        let last = [
            (":status", "200"),
            private,
            ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
            place,
            ("content-encoding", "gzip"),
            cookie,
        ];
        reads(&mut decoder, blocks[2], &last, 215);
    }
}

#[test]
fn what_is_no_block_is_refused() {
    for (block, what) in [
        ("80", "index 0"),
        ("be", "an entry that is not there"),
        ("7e 01 61", "its name"),
        ("00 0a 61", "a string broken off"),
        ("00 01", "no string"),
        ("00 81 ff 01 61", "a Huffman code of padding alone"),
        ("3f e2 1f", "a table of 4,097 bytes"),
        ("82 20", "another table size after a field"),
    ] {
        assert!(Decoder::new().decode(&hex(block), 4096).is_none(), "{what}");
    }
    assert!(Decoder::new().decode(&hex("3f e1 1f"), 4096).is_some(), "a table of 4,096 bytes");
}

#[test]
fn one_byte_is_not_made_into_many() {
    let mut decoder = Decoder::new();
    let mut block = vec![0x40, 1, b'n'];
    write_integer(&mut block, 4000, 7);
    block.extend([b'v'; 4000]);
    block.extend([0xbe; 16]);
    assert!(decoder.decode(&block, 16 * 1024).is_none());
}
