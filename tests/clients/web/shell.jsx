// The smallest application around Element's user interface: where the server is, which screen the address names.
import "matrix-js-sdk/src/browser-index";
import React from "react";
import ReactDOM from "react-dom";
import PlatformPeg from "matrix-react-sdk/lib/PlatformPeg";
import BasePlatform from "matrix-react-sdk/lib/BasePlatform";
import SdkConfig from "matrix-react-sdk/lib/SdkConfig";
import * as languageHandler from "matrix-react-sdk/lib/languageHandler";

const query = new URLSearchParams(location.search);
const homeserver = query.get("homeserver") ?? localStorage.getItem("test_homeserver");
localStorage.setItem("test_homeserver", homeserver);

class Shell extends BasePlatform {
    getConfig() {
        return Promise.resolve(SdkConfig.get());
    }
    getDefaultDeviceDisplayName() {
        return "Element in a test";
    }
    getHumanReadableName() {
        return "Test Shell";
    }
    requestNotificationPermission() {
        return Promise.resolve("denied");
    }
    getAppVersion() {
        return Promise.resolve("test");
    }
    reload() {
        location.reload();
    }
    canSelfUpdate() {
        return Promise.resolve(false);
    }
    supportsNotifications() {
        return false;
    }
}

function screenOfAddress() {
    const [screen, parameters = ""] = location.hash.replace(/^#\/?/, "").split("?");
    return { screen, params: Object.fromEntries(new URLSearchParams(parameters)) };
}

function onNewScreen(screen, replace) {
    const address = `#/${screen}`;
    if (address === location.hash) return;
    replace ? history.replaceState(null, "", address) : history.pushState(null, "", address);
}

/** Media that a token protects: see `media_worker.js`. */
async function authenticateMedia() {
    navigator.serviceWorker.addEventListener("message", ({ ports: [port] }) => {
        port.postMessage(window.mxMatrixClientPeg?.get()?.getAccessToken() ?? null);
    });
    await navigator.serviceWorker.register("/media_worker.js");
    await navigator.serviceWorker.ready;
}

async function start() {
    await authenticateMedia();
    const config = {
        brand: "Element",
        default_server_config: { "m.homeserver": { base_url: homeserver } },
        disable_guests: true,
        disable_3pid_login: true,
        show_labs_settings: false,
        setting_defaults: { "UIFeature.urlPreviews": true },
    };
    SdkConfig.put(config);
    // What follows reads the configuration while it is loaded.
    const { default: AutoDiscoveryUtils } = await import("matrix-react-sdk/lib/utils/AutoDiscoveryUtils");
    const { default: MatrixChat } = await import("matrix-react-sdk/lib/components/structures/MatrixChat");
    const server = await AutoDiscoveryUtils.validateServerConfigWithStaticUrls(homeserver, undefined, true);
    SdkConfig.add({ validated_server_config: { ...server, isDefault: true } });
    PlatformPeg.set(new Shell());
    await languageHandler.setLanguage(["en"]);
    const { screen, params } = screenOfAddress();
    const element = React.createElement(MatrixChat, {
        config: SdkConfig.get(),
        onNewScreen,
        enableGuest: false,
        realQueryParams: {},
        startingFragmentQueryParams: params,
        onTokenLoginCompleted: () => {},
        initialScreenAfterLogin: screen ? { screen, params } : undefined,
        defaultDeviceDisplayName: "Element in a test",
    });
    window.matrixChat = ReactDOM.render(element, document.getElementById("matrixchat"));
    addEventListener("hashchange", () => {
        const to = screenOfAddress();
        window.matrixChat.showScreen(to.screen, to.params);
    });
}

start().catch((error) => {
    console.error(error);
    document.body.dataset.failure = String(error);
});
