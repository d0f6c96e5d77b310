-- SPDX-License-Identifier: Apache-2.0
-- Simple IMIX: of 12 frames 7 have 64 bytes, 4 have 570 and one has 1518 (with FCS), as a sequence in which the sizes are spread. Each of the
-- 12 is a flow of its own, both directions: pktgen ... -f imix.lua. Settings: common.lua (PG_SIZE has no meaning). Guide: docs/pktgen.md.
local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local common = require("common")

local sizes = { 64, 570, 64, 64, 570, 64, 1518, 64, 570, 64, 570, 64 }

local function fill(port, source, destination, is_client)
    for i, size in ipairs(sizes) do
        pktgen.seqTable(i - 1, tostring(port), {
            eth_dst_addr = destination.mac,
            eth_src_addr = source.mac,
            ip_dst_addr = destination.address,
            ip_src_addr = source.address .. "/32",
            sport = is_client and source.port + i or source.port,
            dport = is_client and destination.port or destination.port + i,
            ethType = "ipv4",
            ipProto = "udp",
            vlanid = 1, -- without effect unless the port's frames are tagged
            pktSize = size,
            cos = 0,
            tos = 0,
            gtpu_teid = 0,
        })
    end
    pktgen.set(tostring(port), "seq_cnt", #sizes)
end

common.main(function()
    common.prepare()
    fill(common.lan, common.client, common.server, true)
    fill(common.wan, common.server, common.client, false)
    common.load(nil, common.rate)
    common.establish(1)
    common.run()
end)
