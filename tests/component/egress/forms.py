"""Forms of addresses, as data: what no host may be written like, and what no name may resolve to (S3)."""

from __future__ import annotations

# As a target: no literal address in any notation gets as far as a rule.
LITERALS = [
    "127.0.0.1", "127.1", "127.0.1", "127.0.0.1.", "0", "0.0.0.0", "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7f.1",
    "017700000001", "0177.0.0.1", "0177.0.0.01", "127.0.0.0x1", "127.000.000.001", "00000177.0.0.1", "0x7F.0X0.0.1",
    "0x", "1.0x", "localhost.0x7f", "a.1", "a.b.127", "10.0.0.1", "169.254.169.254", "2852039166", "0xa9fea9fe",
    "0251.0376.0251.0376", "169.254.43518", "192.168.1", "4294967295", "4294967296", "255.255.255.255",
    "[::1]", "[::]", "::1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:0001]", "[::127.0.0.1]",
    "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[fd00:ec2::254]", "[fc00::1]", "[::1",
    "::1]", "[]", "[localhost]", "[v1.x]",
]  # fmt: skip

ODD_HOSTS = [
    "", ".", "..", "a..b", ".a.example", "api.example.", "api.example..", "user@api.example", "user:pw@api.example",
    "api.example\x00.evil.example", "api.example\x00", "\x00api.example", "api example", " api.example", "api.example\t",
    "api.example\n", "api.example\r\nx:y", "api.example%00", "api%2eexample", "api.example/", "api.example\\", "api.example?",
    "api.example#", "api.example;", "api.example,b", "-api.example", "api-.example", "a" * 64 + ".example", "ä.example",
    "api。example", "ａｐｉ.example", "１２７.0.0.1", "①②⑦.example", "xn--", "xn--a.example", "xn--\u00e4", "x" * 254,
    "*.example", "api.*", "$(id).example", "{api}.example", "\u202eapi.example",
]  # fmt: skip

# As resolved: (address, refused for a manifest's host, refused for the platform's own host)
NEVER = [
    "127.0.0.1", "127.255.255.254", "127.0.0.53", "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.170.2", "169.254.0.1",
    "100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::2", "::127.0.0.1", "::169.254.169.254", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8",
    "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", "64:ff9b::127.0.0.1", "64:ff9b::8.8.8.8",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "64:ff9b:1:ffff::8.8.8.8", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:808:808::1", "fe80::1", "febf::1", "fec0::1", "feff::1", "ff02::1", "ff0e::1",
    "fd00:ec2::254", "fd20:ce::254", "2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a9fe:a9fe",
]  # fmt: skip
PRIVATE = [
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "100.127.255.255",
    "192.0.0.1", "192.0.0.170", "192.0.2.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.80", "192.88.99.1",
    "fc00::1", "fdff::1", "2001:db8::1", "2001:2::1", "2001:10::1", "2001:20::1", "3fff::1", "100::1",
]  # fmt: skip
NOT_GLOBAL = ["4000::1", "8000::1", "c000::1", "5f00::1", "200::1"]
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.215.14", "172.32.0.1", "172.15.0.1", "100.63.255.255", "100.128.0.1", "192.0.1.1",
          "2606:4700:4700::1111", "2a00:1450:4001::200e", "2001:4860:4860::8888"]  # fmt: skip

# Forms of the address of this machine, or of metadata, that some parser or another reads as one.
URL_FORMS = [
    *LITERALS, "localhost.", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[0:0:0:0:0:0:0:1]", "[::1%25lo]", "[::1%lo]",
    "[fe80::1%2525eth0]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::7f00:1]", "[2001:0:7f00:1::]", "[2002:a9fe:a9fe::]", "[::ffff:0:7f00:1]",
    "[ff02::1]", "[fec0::1]", "[::7f00:1]", "[::169.254.169.254]", "169.254.169.254.", "0xa9.0xfe.0xa9.0xfe", "0xa9fe.0xa9fe",
    "0251.254.0xa9.254", "127.0.0.1%00.example", "127.0.0.1%2e", "127%2e0%2e0%2e1", "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
    "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\u0661\u0662\u0667.0.0.1", "loc\u00adalhost", 
    "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3",
    "user@127.0.0.1", "user:pw@169.254.169.254", "api.example@127.0.0.1", "api.example:443@127.0.0.1", "127.0.0.1\\@api.example",
    "127.0.0.1#@api.example", "127.0.0.1?@api.example", "api.example#@127.0.0.1", "127.0.0.1/..@api.example", " 127.0.0.1", "127.0.0.1 ",
    "127.0.0.1\t", "127.0.0.1\r\nhost: x", "-0x7f000001", "+2130706433", "127.0.0.1e0", "1e9", "[127.0.0.1]", "[[::1]]",
    "127.0.0.1..", "[::ffff:127.0.0.1%25lo]", "0x7f000001.", "[::1].example:1",
]  # fmt: skip
