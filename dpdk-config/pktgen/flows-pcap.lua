-- SPDX-License-Identifier: Apache-2.0
-- Many UDP flows, both directions, from two captures that flows.py has written:
--   pktgen ... -s 0:originals.pcap -s 1:replies.pcap -f flows-pcap.lua
-- PG_FLOWS is the number of packets of a capture, PG_SIZE that of their bytes with FCS. Other settings: common.lua. Guide: docs/pktgen.md.
local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local common = require("common")

common.main(function()
    local flows = common.setting("FLOWS", 1000)
    common.prepare()
    pktgen.pcap(common.both, "on")
    common.load(nil, common.rate)
    -- Long enough for two walks through the capture at half the rate.
    local rate = common.line_rate(common.mbits, common.size) * common.rate / 100
    common.establish(math.max(1, 4 * flows / rate))
    common.run()
end)
