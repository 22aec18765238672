import HCHTTP
import HCIO

extension Routes {
    /// Static files, on any host: the operators' console.
    static func addAssets(to table: inout RouteTable, _ assets: AssetCatalog) {
        let mount = assets.mount
        table.addPlatform(
            .get, String(mount.dropLast()), "consoleRedirect", "Leads to the console."
        ) { _ in
            HTTPResponse(308, headers: HTTPHeaders([(.location, mount)]))
        }
        table.addPlatform(.get, mount, "console", "The console's first page.") { request in
            try assets.response(to: request, name: "")
        }
        table.addPlatform(
            .get, mount + "{asset}", "consoleAsset", "A file of the console, by its hashed name."
        ) { request in
            try assets.response(to: request, name: request.target.segments.last ?? "")
        }
    }
}
